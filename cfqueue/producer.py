"""Queue handles: ``send`` and ``send_batch``, and a look at what waits.

Everything is checked before anything is sent; ``send`` returns when the broker has confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from cfqueue import clock
from cfqueue.errors import BatchTooLarge, InvalidExpiry, InvalidMessage, MessageRejected
from cfqueue.limits import CLOUDFLARE, DEFAULT_PRIORITY, Limits
from cfqueue.messages import (
    BacklogMetrics,
    Delivery,
    OutgoingMessage,
    build_message,
    check_delay,
    check_headers,
    check_priority,
    check_queue_name,
    read_message,
)
from cfqueue.messages.message import moment

if TYPE_CHECKING:
    from cfqueue.brokers.base import Backlog, Broker

#: The last moment that a ``datetime`` can say: the end of the year 9999.
LATEST_MS = 253_402_300_799_999

_MESSAGE_KEYS = {
    "body": "body",
    "content_type": "content_type",
    "contentType": "content_type",
    "delay_seconds": "delay_seconds",
    "delaySeconds": "delay_seconds",
    "priority": "priority",
    "expires": "expires",
}

#: What ``options`` of a call may hold; priority and expiry are keywords of ours.
_CALL_OPTIONS = ("content_type", "delay_seconds")
#: What a call takes besides, for its error texts.
_KEYWORDS = {"send()": ("priority", "expires", "timeout"), "send_batch()": ("timeout",)}


@dataclass(frozen=True, slots=True)
class QueueMetrics(BacklogMetrics):
    """What waits in a queue. ``None`` where the broker cannot tell; nothing is invented."""

    #: Messages whose delay has not passed.
    delayed_count: int | None = None
    #: Messages that a worker holds now.
    in_flight_count: int | None = None
    #: Messages that came back without being settled.
    suspect_count: int | None = None

    @classmethod
    def of(cls, backlog: Backlog) -> QueueMetrics:
        """The metrics of a broker's answer."""
        oldest = None if backlog.oldest_ms is None else moment(backlog.oldest_ms)
        return cls(backlog.count, backlog.bytes, oldest, backlog.delayed, backlog.in_flight, backlog.suspects)


class SendMetadata:
    """``result.metadata``: the metrics are asked for when they are first read."""

    __slots__ = ("_read", "_seen")

    def __init__(self, read: Callable[[], QueueMetrics]) -> None:
        self._read = read
        self._seen: QueueMetrics | None = None

    @property
    def metrics(self) -> QueueMetrics:
        """What waits in the queue, as of the first reading."""
        if self._seen is None:
            self._seen = self._read()
        return self._seen


class SendResult:
    """What ``send`` and ``send_batch`` return: the messages are stored. Can also be awaited."""

    __slots__ = ("ids", "metadata")

    def __init__(self, ids: list[str], read_metrics: Callable[[], QueueMetrics]) -> None:
        #: The ids of the messages, in the order in which they were given.
        self.ids = ids
        self.metadata = SendMetadata(read_metrics)

    @property
    def id(self) -> str:
        """The id of the message (of the first one of a batch)."""
        return self.ids[0]

    def __await__(self) -> Generator[Any, None, SendResult]:
        """``await queue.send(…)`` gives the result itself: Cloudflare's code runs unchanged."""
        yield from ()
        return self

    def __repr__(self) -> str:
        return f"<SendResult {', '.join(self.ids[:3])}{', …' if len(self.ids) > 3 else ''}>"


@dataclass(frozen=True, slots=True)
class PeekedMessage:
    """A message that was looked at and not taken."""

    id: str
    timestamp: datetime
    attempts: int
    body: Any
    content_type: str
    #: All headers; a dead letter carries ``cfq-reason``, ``cfq-origin``, ``cfq-error-message`` and others.
    headers: Mapping[str, Any]
    #: How often it came back without being settled.
    suspicion: int = 0


class Queue:
    """A queue as its producers see it. Safe in threads, after a fork, and inside a handler."""

    def __init__(
        self,
        name: str,
        broker: Callable[[], Broker],
        *,
        limits: Callable[[], Limits] = lambda: CLOUDFLARE,
        delivery_delay: Callable[[], int] = lambda: 0,
    ) -> None:
        self.name = check_queue_name(name)
        self._broker = broker
        self._limits = limits
        self._delivery_delay = delivery_delay

    def send(
        self,
        body: Any,
        options: Mapping[str, Any] | None = None,
        *,
        content_type: str = "json",
        delay_seconds: int | None = None,
        priority: int | None = None,
        expires: float | timedelta | datetime | None = None,
        timeout: float | None = None,
        **aliases: Any,
    ) -> SendResult:
        """Send one message; return when the broker has confirmed it.

        Args:
            body: what the handler reads as ``message.body``; at most 128,000 bytes encoded.
            options: Cloudflare's form of the options, as one mapping: ``{"delaySeconds": 5}``.
            content_type: ``"json"`` (what ``json.dumps`` takes, dates and UUIDs), ``"text"`` or ``"bytes"``.
            delay_seconds: whole seconds, 0 to 86,400; the queue's ``delivery_delay`` when not given. 0 counts.
            priority: 0 (default) to 9; higher is delivered first. An addition to Cloudflare's model.
            expires: seconds from now, a timedelta, or a date with a zone; afterwards it is dead-lettered
                with ``reason=expired`` instead of delivered.
            timeout: seconds to wait for the broker.
            **aliases: ``contentType`` and ``delaySeconds`` are accepted.

        Raises:
            InvalidMessage: an argument is wrong; nothing was sent.
            BrokerUnavailable, BrokerFull: nothing was stored.
            SendUncertain: the outcome is unknown.

        """
        message = _options("send()", _joined("send()", options, aliases))
        message.setdefault("content_type", content_type)
        if delay_seconds is not None:
            message["delay_seconds"] = delay_seconds
        built = self._build(body, priority=priority, expires=expires, call_delay=None, **message)
        return self.publish([built], timeout=timeout)

    def send_batch(
        self,
        messages: Iterable[Mapping[str, Any]],
        options: Mapping[str, Any] | None = None,
        *,
        content_type: str | None = None,
        delay_seconds: int | None = None,
        timeout: float | None = None,
        **aliases: Any,
    ) -> SendResult:
        """Send up to 100 messages (256,000 encoded bytes) as one: all of them are stored, or none.

        Args:
            messages: each ``{"body": …}``, with ``content_type``, ``delay_seconds``, ``priority`` and
                ``expires`` where wanted. A message's own delay wins over the call's, the call's over the queue's.
            options: Cloudflare's form of the options, as one mapping.
            content_type: for the messages that name none.
            delay_seconds: for the messages that name none.
            timeout: seconds to wait for the broker.
            **aliases: ``contentType`` and ``delaySeconds`` are accepted.

        Raises:
            InvalidMessage: an argument is wrong (the text says which message); nothing was sent.
            BrokerUnavailable, BrokerFull: nothing was stored.
            SendUncertain: the outcome is unknown.

        """
        given = _options("send_batch()", _joined("send_batch()", options, aliases))
        default_type = given.get("content_type", content_type) or "json"
        call_delay = given.get("delay_seconds", delay_seconds)
        limits = self._limits()
        call_delay = check_delay(call_delay, what="delay_seconds of send_batch()", limits=limits)
        built = self._build_batch(messages, default_type, call_delay, limits)
        return self.publish(built, timeout=timeout)

    async def asend(self, body: Any, options: Mapping[str, Any] | None = None, **keywords: Any) -> SendResult:
        """``send`` that does not block the running event loop."""
        return await _in_thread(partial(self.send, body, options, **keywords))

    async def asend_batch(
        self,
        messages: Iterable[Mapping[str, Any]],
        options: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> SendResult:
        """``send_batch`` that does not block the running event loop."""
        _check_iterable(messages)
        return await _in_thread(partial(self.send_batch, list(messages), options, **keywords))

    sendBatch = send_batch  # noqa: N815 - Cloudflare's spelling

    def metrics(self) -> QueueMetrics:
        """What waits in the queue now."""
        return QueueMetrics.of(self._broker().backlog(self.name))

    def peek(self, limit: int = 10) -> list[PeekedMessage]:
        """Look at up to ``limit`` (1 to 100) messages without taking them; no attempt is counted.

        What cannot be decoded (a dead letter with ``cfq-reason`` ``decode_failed`` or ``bad_arguments``) is
        shown with its payload as it stands: a ``str`` or ``bytes``.
        """
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= 100:
            raise InvalidMessage(f"peek() takes a whole number of messages from 1 to 100, not {limit!r}.")
        return [_peeked(delivery) for delivery in self._broker().peek(self.name, limit)]

    def purge(self) -> int:
        """Remove every message that no worker holds, delayed ones included; returns how many."""
        return self._broker().purge(self.name)

    def build(
        self,
        body: Any,
        *,
        delay_seconds: int | None = None,
        priority: int | None = None,
        expires: float | timedelta | datetime | None = None,
        message_id: str | None = None,
        ignore_result: bool = True,
        headers: Mapping[str, Any] | None = None,
    ) -> OutgoingMessage:
        """Check and encode a message without sending it; ``handler.apply_async`` does so."""
        return self._build(
            body,
            delay_seconds=delay_seconds,
            priority=priority,
            expires=expires,
            message_id=message_id,
            ignore_result=ignore_result,
            headers=headers,
        )

    def publish(self, messages: list[OutgoingMessage], *, timeout: float | None = None) -> SendResult:
        """Send messages that were built; returns when the broker has confirmed all of them."""
        self._broker().publish(messages, timeout=_timeout(timeout))
        return SendResult([message.id for message in messages], self.metrics)

    def _build(
        self,
        body: Any,
        *,
        content_type: str = "json",
        delay_seconds: Any = None,
        priority: Any = None,
        expires: Any = None,
        call_delay: int | None = None,
        limits: Limits | None = None,
        now_ms: int | None = None,
        message_id: str | None = None,
        ignore_result: bool = True,
        headers: Mapping[str, Any] | None = None,
    ) -> OutgoingMessage:
        limits = limits or self._limits()
        now_ms = clock.now_ms() if now_ms is None else now_ms
        if headers:
            check_headers(headers)
        delay = check_delay(delay_seconds, what="delay_seconds", limits=limits)
        if delay is None:
            delay = self._delivery_delay() if call_delay is None else call_delay
        return build_message(
            self.name,
            body,
            content_type,
            timestamp_ms=now_ms,
            delay_seconds=delay,
            priority=DEFAULT_PRIORITY if priority is None else check_priority(priority),
            expires_ms=None if expires is None else _expiry(expires, now_ms),
            message_id=message_id,
            ignore_result=ignore_result,
            headers=headers,
            limits=limits,
        )

    def _build_batch(
        self,
        messages: Iterable[Mapping[str, Any]],
        default_type: str,
        call_delay: int | None,
        limits: Limits,
    ) -> list[OutgoingMessage]:
        _check_iterable(messages)
        now_ms = clock.now_ms()
        built: list[OutgoingMessage] = []
        total = 0
        for position, message in enumerate(messages):
            if position >= limits.send_batch_count:
                raise BatchTooLarge(
                    f"batch message count of more than {limits.send_batch_count} exceeds limit of "
                    f"{limits.send_batch_count}. Send the messages in several batches; nothing was sent."
                )
            one = self._build_item(position, message, default_type, call_delay, limits, now_ms)
            total += one.size
            built.append(one)
        if not built:
            raise BatchTooLarge("send_batch() requires at least one message; an empty list was given.")
        if total > limits.send_batch_bytes:
            raise BatchTooLarge(
                f"batch size of {total} bytes exceeds limit of {limits.send_batch_bytes} (encoded bodies, "
                "summed). Send the messages in several batches; nothing was sent."
            )
        return built

    def _build_item(
        self,
        position: int,
        message: Mapping[str, Any],
        default_type: str,
        call_delay: int | None,
        limits: Limits,
        now_ms: int,
    ) -> OutgoingMessage:
        if not isinstance(message, Mapping) or "body" not in message:
            raise InvalidMessage(
                f"Message {position} of the batch (counted from 0) is {message!r:.80}, not a mapping with a "
                "'body' like {'body': {'id': 1}}. Nothing was sent."
            )
        try:
            given = _options("send_batch()", message, allowed=tuple(_MESSAGE_KEYS.values()))
            body = given.pop("body")
            given.setdefault("content_type", default_type)
            return self._build(body, call_delay=call_delay, limits=limits, now_ms=now_ms, **given)
        except InvalidMessage as error:
            error.add_note(f"This was message {position} of the batch (counted from 0); nothing was sent.")
            raise

    def __repr__(self) -> str:
        return f"<Queue {self.name!r}>"


async def _in_thread(send: Callable[[], SendResult]) -> SendResult:
    import asyncio  # here, because it costs a program that has no event loop 10 ms

    return await asyncio.to_thread(send)


def _peeked(delivery: Delivery) -> PeekedMessage:
    try:
        message = read_message(delivery)
        timestamp, body, kind = message.timestamp, message.body, str(message.content_type)
    except MessageRejected:
        timestamp = moment(min(max(delivery.timestamp_ms, 0), LATEST_MS))
        body, kind = delivery.body, "text" if isinstance(delivery.body, str) else "bytes"
    return PeekedMessage(
        delivery.id, timestamp, delivery.attempts, body, kind, delivery.headers, delivery.suspicion
    )


def _joined(call: str, options: Any, aliases: dict[str, Any]) -> dict[str, Any]:
    if options is None:
        return aliases
    if not isinstance(options, Mapping):
        raise InvalidMessage(
            f"{call} takes its options as keywords or as one mapping ({{'delaySeconds': 5}}), not {options!r:.80}."
        )
    return {**options, **aliases}


def _options(call: str, given: Mapping[str, Any], allowed: tuple[str, ...] = _CALL_OPTIONS) -> dict[str, Any]:
    """Options in any accepted spelling, by their own names. An explicit None counts as not given."""
    found: dict[str, Any] = {}
    for key, value in given.items():
        name = _MESSAGE_KEYS.get(key)
        if name not in allowed:
            raise InvalidMessage(
                f"{call} has no option {key!r}; it takes {', '.join(dict.fromkeys((*allowed, *_KEYWORDS[call])))}."
            )
        if value is not None or name == "body":
            if name in found:
                raise InvalidMessage(f"{call} was given {name} twice, the second time as {key!r}.")
            found[name] = value
    return found


def _check_iterable(messages: object) -> None:
    if isinstance(messages, Mapping | str | bytes) or not isinstance(messages, Iterable):
        raise InvalidMessage(
            f"send_batch() takes a list of messages like {{'body': …}}, not one {type(messages).__name__}."
        )


def _expiry(expires: float | timedelta | datetime, now_ms: int) -> int:
    """Milliseconds since the epoch. A date that has passed is taken: the message is dead-lettered as expired.

    Raises InvalidExpiry for anything that is no time.
    """
    if isinstance(expires, datetime):
        if expires.tzinfo is None:
            raise InvalidExpiry(
                f"expires={expires!r} has no time zone. Use datetime.now(UTC) + timedelta(…)."
            )
        return int(expires.astimezone(UTC).timestamp() * 1000)
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 10**9:
        raise InvalidExpiry(
            f"expires={expires!r} is not a positive number of seconds, a timedelta or a date with a time zone."
        )
    return now_ms + int(seconds * 1000)


def _timeout(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < 10**9:
        raise InvalidMessage(f"timeout={timeout!r} is not a positive number of seconds.")
    return float(timeout)
