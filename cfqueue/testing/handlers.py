"""One batch and what a handler did with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from cfqueue import clock
from cfqueue.messages import CallRecord, Message, MessageBatch, check_queue_name, content_type_of
from cfqueue.messages.context import Context
from cfqueue.messages.invocation import count_arguments, invoke
from cfqueue.messages.message import moment

Handler = Callable[..., Any]

_MESSAGE_KEYS: Final = frozenset(("id", "body", "timestamp", "attempts", "content_type", "contentType"))


def create_message_batch(queue_name: str, messages: Iterable[Mapping[str, Any]]) -> MessageBatch:
    """Make a batch as a handler receives it.

    Args:
        queue_name: what ``batch.queue`` says.
        messages: each with ``id`` and ``body``, and optionally ``timestamp`` (a datetime, by default now),
            ``attempts`` (from 1, the default) and ``content_type`` (``json``).

    Raises:
        TypeError, ValueError: a message is not such a mapping; the text says which and why.
        InvalidQueueName: the queue cannot have that name.

    """
    made = [_message(queue_name, position, fields) for position, fields in enumerate(messages)]
    return MessageBatch(check_queue_name(queue_name), made)


def _message(queue: str, position: int, fields: Mapping[str, Any]) -> Message:
    here = f"Message {position} of the batch"
    if not isinstance(fields, Mapping):
        raise TypeError(f"{here} is of type {type(fields).__name__}; write it as {{'id': …, 'body': …}}.")
    missing = {"id", "body"} - fields.keys()
    if missing:
        raise ValueError(f"{here} has no {min(missing)!r}; write it as {{'id': …, 'body': …}}.")
    strange = fields.keys() - _MESSAGE_KEYS
    if strange:
        known = ", ".join(sorted(_MESSAGE_KEYS))
        raise ValueError(f"{here} has a key {min(strange, key=str)!r} that means nothing; known are {known}.")
    uid, attempts = fields["id"], fields.get("attempts", 1)
    timestamp = fields.get("timestamp")
    if not isinstance(uid, str) or not uid:
        raise TypeError(
            f"The id of message {position} of the batch is {uid!r}; it is a str with something in it."
        )
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
        raise ValueError(f"attempts of message {uid!r} is {attempts!r}; it is a whole number from 1.")
    if timestamp is None:
        timestamp = moment(clock.now_ms())
    elif not isinstance(timestamp, datetime) or timestamp.tzinfo is None:
        raise TypeError(f"timestamp of message {uid!r} is {timestamp!r}; it is a datetime with a time zone.")
    kind = content_type_of(fields.get("content_type", fields.get("contentType", "json")))
    return Message(uid, timestamp, fields["body"], attempts, kind, queue)


@dataclass(frozen=True, slots=True)
class RetryBatch:
    """What ``retry_all`` asked for."""

    retry: bool
    delay_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class RetryMessage:
    """What the last ``retry`` of one message asked for."""

    msg_id: str
    delay_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class QueueResult:
    """What a handler did with its batch, as Cloudflare's runtime reports it to the queue service."""

    outcome: Literal["ok", "exception"]
    ack_all: bool
    retry_batch: RetryBatch
    explicit_acks: list[str]
    retry_messages: list[RetryMessage]
    #: What the handler, or something it left to ``ctx.wait_until``, ended with. Not part of ``to_dict``.
    error: BaseException | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the same in Cloudflare's camelCase; ``delaySeconds`` is left out where none was given."""
        return {
            "outcome": self.outcome,
            "ackAll": self.ack_all,
            "retryBatch": {"retry": self.retry_batch.retry, **_delay(self.retry_batch.delay_seconds)},
            "explicitAcks": list(self.explicit_acks),
            "retryMessages": [
                {"msgId": each.msg_id, **_delay(each.delay_seconds)} for each in self.retry_messages
            ],
        }


def _delay(seconds: int | None) -> dict[str, int]:
    return {} if seconds is None else {"delaySeconds": seconds}


def result_of(record: CallRecord, error: BaseException | None) -> QueueResult:
    """Return a batch's record in the form that is shown to a test."""
    return QueueResult(
        record.outcome,
        record.ack_all,
        RetryBatch(record.retry_all, record.retry_all_delay),
        list(record.explicit_acks),
        [RetryMessage(uid, delay) for uid, delay in record.retries.items()],
        error,
    )


def get_queue_result(
    batch: MessageBatch, handler: Handler, env: Any = None, ctx: Context | None = None
) -> QueueResult:
    """Call a handler with a batch, wait for all it started, and report what it did.

    Args:
        batch: from ``create_message_batch``; each batch can be run once.
        handler: ``(batch)``, ``(batch, env)`` or ``(batch, env, ctx)``, ``def`` or ``async def``.
        env: passed on as it is.
        ctx: a ``Context`` of one's own; by default a new one.

    An exception of the handler, or of what it gave to ``ctx.wait_until``, is not raised: the outcome is
    ``"exception"`` and ``result.error`` holds it. (Celery's Retry, Reject and Ignore mean something to a
    worker only; here they are exceptions like others.)

    Raises:
        HandlerSignatureError: the handler cannot be called with one, two or three arguments.
        TypeError: that is no batch.
        ValueError: the batch was run before.

    """
    if not isinstance(batch, MessageBatch):
        raise TypeError(
            "get_queue_result() takes a batch, made with create_message_batch(), and then the handler; "
            f"the first argument is of type {type(batch).__name__}."
        )
    if batch.finished:
        raise ValueError("This batch was run before. Make a new one with create_message_batch().")
    record, error = run(batch, handler, env, ctx)
    return result_of(record, error)


def run(
    batch: MessageBatch, handler: Handler, env: Any, ctx: Context | None = None
) -> tuple[CallRecord, BaseException | None]:
    """Call the handler as the worker does; return what was called on the batch, and the failure if any."""
    arguments = count_arguments(handler, batch.queue)
    try:
        invoke(handler, arguments, batch, env, ctx)
    except (KeyboardInterrupt, GeneratorExit):
        raise  # somebody wants the test itself to end
    except BaseException as error:  # MemoryError and SystemExit are answers like others, as in the worker
        return batch.finish(error), error
    return batch.finish(), None
