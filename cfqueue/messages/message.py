"""Message and MessageBatch: what a handler receives, and what it may call.

Calls are recorded exactly as Cloudflare's runtime records them (reference: workerd ``api/queue.c++``); they
take effect when the handler has returned and its batch is settled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, overload

from cfqueue.limits import CLOUDFLARE, Limits
from cfqueue.messages.content import ContentType, check_delay
from cfqueue.messages.outcome import ErrorInfo
from cfqueue.messages.settle import CallRecord

__all__ = ["BacklogMetrics", "CallRecord", "ErrorInfo", "Message", "MessageBatch", "Metadata", "moment"]

logger = logging.getLogger("cfqueue.messages")

_NO_HEADERS: dict[str, Any] = {}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(milliseconds: int) -> datetime:
    """Return the date, in UTC, of a number of milliseconds since the epoch.

    Raises:
        OverflowError: it is beyond the year 9999.

    """
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except ValueError as error:
        raise OverflowError(str(error)) from None


class Message:
    """One message of a batch."""

    __slots__ = ("_batch", "_headers", "attempts", "body", "content_type", "id", "queue", "timestamp")

    #: 32 hexadecimal digits, or the task id that Celery gave it. The same on every delivery.
    id: str
    #: When it was first sent, in UTC. Kept on a retry and in the dead-letter queue.
    timestamp: datetime
    body: Any
    #: Which delivery this is, from 1.
    attempts: int
    content_type: ContentType
    queue: str

    def __init__(
        self,
        id: str,  # noqa: A002 - Cloudflare's word
        timestamp: datetime,
        body: Any,
        attempts: int = 1,
        content_type: ContentType = "json",
        queue: str = "",
        headers: dict[str, Any] | None = None,
    ) -> None:
        self.id = id
        self.timestamp = timestamp
        self.body = body
        self.attempts = attempts
        self.content_type = content_type
        self.queue = queue
        self._headers = _NO_HEADERS if headers is None else headers
        self._batch: MessageBatch | None = None

    @property
    def headers(self) -> Mapping[str, Any]:
        """All headers, read-only; in a dead-letter queue also why it came there (``cfq-reason``…)."""
        return MappingProxyType(self._headers)

    def ack(self) -> None:
        """Count this message as done, even if the handler raises afterwards.

        Without effect (and a warning is logged) after ``retry()`` on it or after ``retry_all()``.
        """
        self._of_batch()._ack(self.id)

    def retry(self, options: Any = None, *, delay_seconds: int | None = None, **aliases: Any) -> None:
        """Deliver this message again, with one attempt more.

        Args:
            options: nothing, or a dict with ``delaySeconds`` (or ``delay_seconds``), as in JavaScript.
            delay_seconds: whole seconds from 0 to 86,400; the default is that of ``retry_all``, then the
                consumer's ``retry_delay``. Also accepted as ``delaySeconds``.
            aliases: ``delaySeconds``.

        A later ``retry`` replaces an earlier one together with its delay. Without effect (and a warning is
        logged) after ``ack()`` on it or after ``ack_all()``.

        Raises:
            InvalidDelay: the delay is not such a number.

        """
        batch = self._of_batch()
        batch._retry(self.id, batch._delay("retry()", options, delay_seconds, aliases))

    def _of_batch(self) -> MessageBatch:
        if self._batch is None:
            raise RuntimeError(
                f"Message {self.id} belongs to no batch, so it cannot be acked or retried. "
                "Use the messages of the batch that the handler received."
            )
        return self._batch

    def __repr__(self) -> str:
        return f"<Message {self.id} of {self.queue!r}, attempt {self.attempts}>"


@dataclass(frozen=True, slots=True)
class BacklogMetrics:
    """What waits in a queue. None where the broker cannot tell; never a guess."""

    backlog_count: int | None = None
    backlog_bytes: int | None = None
    oldest_message_timestamp: datetime | None = None

    @property
    def backlogCount(self) -> int | None:  # noqa: N802 - Cloudflare's spelling
        """Cloudflare's spelling of ``backlog_count``."""
        return self.backlog_count

    @property
    def backlogBytes(self) -> int | None:  # noqa: N802 - Cloudflare's spelling
        """Cloudflare's spelling of ``backlog_bytes``."""
        return self.backlog_bytes

    @property
    def oldestMessageTimestamp(self) -> datetime | None:  # noqa: N802 - Cloudflare's spelling
        """Cloudflare's spelling of ``oldest_message_timestamp``."""
        return self.oldest_message_timestamp


_UNKNOWN = BacklogMetrics()


class Metadata:
    """``batch.metadata``: its metrics are asked for when they are first read, then kept."""

    __slots__ = ("_read", "_seen")

    def __init__(self, read: Callable[[], BacklogMetrics] | None = None) -> None:
        self._read = read
        self._seen: BacklogMetrics | None = None

    @property
    def metrics(self) -> BacklogMetrics:
        """What is left in the queue besides this batch; unknown (None) where nobody can tell."""
        if self._seen is None:
            self._seen = _UNKNOWN if self._read is None else self._read()
        return self._seen


class MessageBatch:
    """The messages that a handler receives at once: a sequence of ``Message`` of one queue."""

    __slots__ = ("_acked", "_finished", "_limits", "_record", "messages", "metadata", "queue")

    def __init__(
        self,
        queue: str,
        messages: Iterable[Message],
        *,
        metrics: Callable[[], BacklogMetrics] | None = None,
        limits: Limits = CLOUDFLARE,
    ) -> None:
        self.queue = queue
        self.messages: tuple[Message, ...] = tuple(messages)
        self.metadata = Metadata(metrics)
        self._limits = limits
        self._record = CallRecord()
        self._acked: set[str] = set()
        self._finished = False
        for message in self.messages:
            message._batch = self

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Message, ...]: ...
    def __getitem__(self, index: int | slice) -> Message | tuple[Message, ...]:
        return self.messages[index]

    def __repr__(self) -> str:
        return f"<MessageBatch of {self.queue!r}, {len(self.messages)} messages>"

    def ack_all(self) -> None:
        """Count every message as done, except those retried before, even if the handler raises afterwards.

        Without effect (and a warning is logged) after ``retry_all()``.
        """
        record = self._record
        if self._too_late("ack_all()"):
            return
        if record.retry_all:
            logger.warning(
                "Received a call to ack_all() after retry_all() was already called. "
                "Calling ack_all() after calling retry_all() has no effect."
            )
            return
        record.ack_all = True

    def retry_all(self, options: Any = None, *, delay_seconds: int | None = None, **aliases: Any) -> None:
        """Deliver every message again, except those acked before.

        Args:
            options: nothing, or a dict with ``delaySeconds`` (or ``delay_seconds``), as in JavaScript.
            delay_seconds: whole seconds from 0 to 86,400 for the messages that ``retry()`` gave none; the
                default is the consumer's ``retry_delay``. Also accepted as ``delaySeconds``.
            aliases: ``delaySeconds``.

        The last delay given counts; a call without one leaves an earlier one in force. Without effect (and
        a warning is logged) after ``ack_all()``.

        Raises:
            InvalidDelay: the delay is not such a number.

        """
        record = self._record
        delay = self._delay("retry_all()", options, delay_seconds, aliases)
        if self._too_late("retry_all()"):
            return
        if record.ack_all:
            logger.warning(
                "Received a call to retry_all() after ack_all() was already called. "
                "Calling retry_all() after calling ack_all() has no effect."
            )
            return
        record.retry_all = True
        if delay is not None:
            record.retry_all_delay = delay

    ackAll = ack_all  # noqa: N815 - Cloudflare's spelling
    retryAll = retry_all  # noqa: N815 - Cloudflare's spelling

    def finish(self, error: BaseException | ErrorInfo | None = None) -> CallRecord:
        """End the batch and return what was called on it; whoever ran the handler calls this, once.

        Args:
            error: what the handler, or something left to ``ctx.wait_until``, ended with.

        A call made after this has no effect, and a warning is logged: the batch is being settled. (On
        Cloudflare such a call does no harm either.)

        """
        if error is not None and not self._finished:
            self._record.outcome = "exception"
            self._record.error = error if isinstance(error, ErrorInfo) else ErrorInfo.of(error)
        self._finished = True
        return self._record

    @property
    def finished(self) -> bool:
        """Whether the batch has been run: calls have no effect any more."""
        return self._finished

    def _ack(self, message_id: str) -> None:
        record = self._record
        if self._finished and self._too_late("ack()"):
            return
        if record.ack_all or message_id in self._acked:
            return
        if record.retry_all or message_id in record.retries:
            earlier = "retry_all()" if record.retry_all else "retry()"
            self._no_effect("ack()", message_id, earlier)
            return
        self._acked.add(message_id)
        record.explicit_acks.append(message_id)

    def _retry(self, message_id: str, delay: int | None) -> None:
        record = self._record
        if self._finished and self._too_late("retry()"):
            return
        if record.ack_all or message_id in self._acked:
            earlier = "ack_all()" if record.ack_all else "ack()"
            self._no_effect("retry()", message_id, earlier)
            return
        record.retries[message_id] = delay

    def _delay(self, what: str, options: Any, delay: Any, aliases: dict[str, Any]) -> int | None:
        """Return the delay given in any of the accepted spellings, checked."""
        if options is None and not aliases:
            return None if delay is None else check_delay(delay, what="delay_seconds", limits=self._limits)
        given = {} if delay is None else {"delay_seconds": delay}
        for source in (options if options is not None else {}, aliases):
            if not isinstance(source, dict):
                raise TypeError(
                    f"{what} takes delay_seconds=…, not a positional {type(source).__name__}: "
                    f"write {what[:-1]}delay_seconds={source!r})."
                )
            given.update(source)
        strange = given.keys() - {"delay_seconds", "delaySeconds"}
        if strange:
            raise TypeError(
                f"{what} takes delay_seconds and nothing else, but got {min(strange, key=str)!r}."
            )
        if len(given) > 1:
            raise TypeError(f"{what} got its delay twice, as delay_seconds and as delaySeconds.")
        for name, value in given.items():
            return check_delay(value, what=name, limits=self._limits)
        return None

    def _no_effect(self, call: str, message_id: str, earlier: str) -> None:
        logger.warning(
            "Received a call to %s on message %s after %s was already called. "
            "Calling %s on a message after calling %s has no effect.",
            call,
            message_id,
            earlier,
            call,
            earlier,
        )

    def _too_late(self, call: str) -> bool:
        if self._finished:
            logger.warning(
                "Received a call to %s on a batch of queue %s after the handler had ended; it has no effect. "
                "Use ctx.wait_until for work that goes on after the handler returns.",
                call,
                self.queue,
            )
        return self._finished
