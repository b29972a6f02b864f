"""A kombu message as a row, and a leased row as a kombu message."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any

from cfqueue import clock
from cfqueue.limits import DEFAULT_PRIORITY, PRIORITY_RANGE
from cfqueue.messages.envelope import TASK_PREFIX, UNSAID, VERSION_HEADER
from cfqueue.transport.operations import Leased, Row


def _plain(value: Any) -> Any:
    """What JSON does not know, as text: headers are for machines that read ISO dates and names."""
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_plain).encode


def milliseconds(moment: Any) -> int | None:
    """An ISO date or a datetime as milliseconds since the epoch, UTC unless it says otherwise."""
    if isinstance(moment, str):
        try:
            moment = dt.datetime.fromisoformat(moment)
        except ValueError:
            return None
    if not isinstance(moment, dt.datetime):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return int(moment.timestamp() * 1000)


def priority_of(properties: dict[str, Any]) -> int:
    """The priority of a message, 0 to 9, higher first; what is out of range counts as the nearest."""
    lowest, highest = PRIORITY_RANGE
    try:
        return max(lowest, min(int(properties.get("priority") or DEFAULT_PRIORITY), highest))
    except (TypeError, ValueError):
        return DEFAULT_PRIORITY


def queue_of(headers: dict[str, Any]) -> str | None:
    """The queue whose handler's task a message is for; None for an ordinary Celery message."""
    task = headers.get("task")
    if not isinstance(task, str) or not task.startswith(TASK_PREFIX):
        return None
    return task.removeprefix(TASK_PREFIX)


def row_of(message: dict[str, Any], queue: str) -> Row:
    """The row that stores ``message`` in ``queue``. An ``eta`` header is kept in the broker as due time."""
    headers: dict[str, Any] = message["headers"]
    properties: dict[str, Any] = message["properties"]
    body = message["body"]
    if isinstance(body, str):
        size = len(body) if body.isascii() else len(body.encode("utf-8", "surrogatepass"))
    else:
        body = bytes(body)
        size = len(body)
    now = clock.now_ms()
    eta = headers.get("eta")
    sent = headers.get("cfq-timestamp")
    expires = headers.get("expires")
    return Row(
        queue=queue,
        headers_json=_encode(headers),
        properties_json=_encode(properties),
        body=body,
        size=size,
        priority=priority_of(properties),
        due_ms=max(milliseconds(eta) or 0, now) if eta else now,
        timestamp_ms=sent if isinstance(sent, int) else now,
        expires_ms=milliseconds(expires) if expires else None,
        message_id=str(headers.get("id") or properties.get("correlation_id") or uuid.uuid4().hex),
        content_type=message.get("content-type"),
        content_encoding=message.get("content-encoding"),
    )


def payload_of(leased: Leased) -> dict[str, Any]:
    """A leased row in the form that kombu's virtual Message reads; its tag is (id, token)."""
    headers = leased.headers
    if VERSION_HEADER in headers:
        headers = {**UNSAID, **headers}
        headers["cfq-attempts"] = leased.attempts
        headers["cfq-suspicion"] = leased.suspicion
    properties: dict[str, Any] = leased.properties or {"priority": leased.priority}
    info: Any = properties.get("delivery_info")
    if not isinstance(info, dict):
        info = {"exchange": "", "routing_key": leased.queue}
        properties["delivery_info"] = info
    info["priority"] = leased.priority
    info["redelivered"] = leased.token > 1
    properties["delivery_tag"] = leased.lease
    return {
        "body": leased.body,
        "content-type": leased.content_type,
        "content-encoding": leased.content_encoding,
        "headers": headers,
        "properties": properties,
    }
