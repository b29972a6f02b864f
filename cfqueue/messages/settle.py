"""Where an outcome is decided: the calls made on a batch, the error if any, and the settings.

The one function that the worker, the pull consumers, the REST API and the test kit use.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from cfqueue.limits import (
    DEFAULT_MAX_BATCH_SIZE,
    DEFAULT_MAX_BATCH_TIMEOUT,
    DEFAULT_MAX_RETRIES,
    DEFAULT_RETRY_DELAY,
)
from cfqueue.messages.outcome import ACK, RETRIES_EXHAUSTED, Ack, DeadLetter, Drop, ErrorInfo, Outcome, Retry


@dataclass(slots=True)
class CallRecord:
    """What a handler did with its batch, as Cloudflare's runtime reports it to the queue service.

    Plain data: this is what travels from the pool child to the worker.
    """

    outcome: Literal["ok", "exception"] = "ok"
    ack_all: bool = False
    retry_all: bool = False
    #: Seconds given with ``retry_all``; None when none was given.
    retry_all_delay: int | None = None
    #: Ids in the order of the first ``ack()``.
    explicit_acks: list[str] = field(default_factory=list)
    #: Id -> seconds given with its last ``retry()``; None when that gave none.
    retries: dict[str, int | None] = field(default_factory=dict)
    #: The exception that the handler, or something it left to ``ctx.wait_until``, ended with.
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """How a queue is consumed. Ranges are checked where settings are read (``config/``), not here."""

    queue: str
    #: Messages in a full batch.
    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE
    #: Seconds from the first message of a partial batch to its flush.
    max_batch_timeout: int = DEFAULT_MAX_BATCH_TIMEOUT
    #: N gives at most N + 1 deliveries.
    max_retries: int = DEFAULT_MAX_RETRIES
    #: Seconds before a failed message is delivered again, where the handler gave none.
    retry_delay: int = DEFAULT_RETRY_DELAY
    #: The resolved name; None drops exhausted messages.
    dead_letter_queue: str | None = None
    #: Most batches in flight over all workers; None: as many as there are slots.
    max_concurrency: int | None = None
    #: Seconds of wall time after which the pool kills the handler, and after which it is asked to stop.
    time_limit: float | None = None
    soft_time_limit: float | None = None
    type: Literal["worker"] = "worker"


class RetryPolicy(Protocol):
    """The part of a consumer's settings that decides outcomes; ``ConsumerSettings`` is one."""

    @property
    def max_retries(self) -> int:
        """N gives at most N + 1 deliveries."""

    @property
    def retry_delay(self) -> int:
        """Seconds, where the handler gave none."""

    @property
    def dead_letter_queue(self) -> str | None:
        """The resolved name; None drops exhausted messages."""


def resolve(record: CallRecord, message_id: str, retry_delay: int) -> Ack | Retry:
    """Return what the calls mean for one message, before its attempts are counted.

    An explicit retry counts first (its own delay, then ``retry_all``'s, then ``retry_delay``; 0 counts as
    given), then an ack, then ``retry_all`` or the exception; a message nobody mentioned is acked.
    """
    return _resolve(record, record.explicit_acks, message_id, retry_delay)


def _resolve(record: CallRecord, acked: Container[str], message_id: str, retry_delay: int) -> Ack | Retry:
    default = retry_delay if record.retry_all_delay is None else record.retry_all_delay
    if message_id in record.retries:
        delay = record.retries[message_id]
        return Retry(default if delay is None else delay, record.error)
    if record.ack_all or message_id in acked:
        return ACK
    if record.retry_all or record.outcome != "ok":
        return Retry(default, record.error)
    return ACK


def settle(record: CallRecord, messages: Sequence[tuple[str, int]], settings: RetryPolicy) -> list[Outcome]:
    """Decide every message of a batch.

    Args:
        record: what the handler did.
        messages: (id, attempts) of each, where attempts counts this delivery (from 1).
        settings: the consumer's.

    Returns:
        One outcome per message, in order. A message to be retried that has had ``max_retries + 1``
        deliveries is dead-lettered at once, without its delay, or dropped when there is no dead-letter queue.

    """
    if record.outcome == "ok" and not record.retry_all and not record.retries:
        return [ACK] * len(messages)  # the usual batch: nothing to look up
    acked = set(record.explicit_acks)
    exhausted = buried(RETRIES_EXHAUSTED, settings, record.error)
    outcomes: list[Outcome] = []
    for message_id, attempts in messages:
        outcome = _resolve(record, acked, message_id, settings.retry_delay)
        used_up = attempts > settings.max_retries and type(outcome) is Retry
        outcomes.append(exhausted if used_up else outcome)
    return outcomes


def buried(reason: str, settings: RetryPolicy, error: ErrorInfo | None = None) -> DeadLetter | Drop:
    """Return where a message goes that is not delivered again: the dead-letter queue, or nowhere."""
    return Drop(reason, error) if settings.dead_letter_queue is None else DeadLetter(reason, error)
