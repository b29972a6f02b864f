"""Messages for a queue handler that arrived on a queue of Celery's own: forwarded, not run.

A plain producer's ``send_task("cfqueue.queue.jobs", [body])`` lands on Celery's default queue, whatever
``exchange`` and ``routing_key`` it names (measured with Celery 5.7: the default queue wins over an empty
exchange). Run there, the message would see no batch, no retry and no dead-letter queue of its handler. So
Celery's consumer copies it to its queue, waits for the confirmation, and then acks the original.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from cfqueue import clock
from cfqueue.errors import BrokerError
from cfqueue.messages import OutgoingMessage

logger = logging.getLogger("cfqueue.consumer")


def strategy(task: Any, app: Any, consumer: Any, **_: Any) -> Callable[..., None]:
    """Celery's ``Task.Strategy`` of queue tasks: what its consumer does with such a message."""
    ours = set(app.__cfqueue__.queue_names())
    queue = task.name.rpartition(".")[2]

    def forward(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **__: Any) -> None:
        del ack, reject, callbacks
        taken = [name for name in ours if consumer.task_consumer.consuming_from(name)]
        if taken:
            # Somebody made Celery consume a queue of ours itself, a dead-letter queue perhaps (remote control's
            # add_consumer): forwarding from there would go on for ever, and forget attempts.
            for name in taken:
                logger.error("cfqueue: queue %s is not for Celery's own consumer; it leaves it again", name)
                consumer.cancel_task_queue(name)
            message.reject_log_error(logger, (Exception,), requeue=True)
            return
        try:
            task.forward(_copy(queue, message, body))
        except BrokerError:
            logger.exception(
                "cfqueue: a message for %s could not be forwarded; it stays where it is", task.name
            )
            message.reject_log_error(logger, (Exception,), requeue=True)
        else:
            message.ack_log_error(logger, (Exception,))

    return forward


def _copy(queue: str, message: Any, body: Any) -> OutgoingMessage:
    """The same message for its own queue: id, headers, body, priority, expiry; an ETA becomes a delay."""
    headers: Mapping[str, Any] = message.headers or {}
    now_ms = clock.now_ms()
    if headers.get("task"):
        text = _text(message.body)
    else:  # protocol 1: Celery hands over the decoded body, in which the headers stand
        headers = {**body, "task": body["task"], "id": body["id"]}
        text = json.dumps([body.get("args", []), body.get("kwargs", {}), {}], default=str)
        headers = {key: value for key, value in headers.items() if key not in ("args", "kwargs")}
    due = _moment(headers.get("eta"))
    delay = 0 if due is None else max(0, -(-(due - now_ms) // 1000))
    priority = (message.properties or {}).get("priority") or 0
    return OutgoingMessage(
        id=str(headers["id"]),
        queue=queue,
        headers={**headers, "eta": None},
        body=text,
        size=len(text),
        content_type="json",
        timestamp_ms=now_ms,
        delay_seconds=delay,
        priority=min(9, max(0, int(priority))),
        expires_ms=_moment(headers.get("expires")),
    )


def _text(body: Any) -> str:
    raw = bytes(body) if isinstance(body, bytes | bytearray | memoryview) else body
    return raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else str(raw)


def _moment(value: Any) -> int | None:
    """A date of Celery's headers in milliseconds; None for none, and for what is no date."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    zoned = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return int(zoned.timestamp() * 1000)
