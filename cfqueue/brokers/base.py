"""The interface behind which every broker family stands.

Two halves. ``Broker`` is what producers and operators use, from any thread. ``Intake`` is the consuming
side inside one worker: it belongs to the consumer's I/O loop and is called from that thread only.

An ``Intake`` carries out *moves*, which are values: take messages, begin a batch, settle outcomes, give
back. A broker that can do so carries out all moves of one ``turn`` in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cfqueue.messages import Delivery, OutgoingMessage
from cfqueue.messages.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in a queue. ``None`` is said where a broker cannot tell; nothing is ever invented."""

    #: Messages that could be delivered now.
    count: int | None
    #: Encoded body bytes of those.
    bytes: int | None
    #: When the oldest of them was first sent, in milliseconds since the epoch.
    oldest_ms: int | None
    #: Messages whose delay has not passed.
    delayed: int | None = None
    #: Messages that a worker holds.
    in_flight: int | None = None
    #: Messages that came back without being settled.
    suspects: int | None = None


@dataclass(frozen=True, slots=True)
class Take:
    """Lease up to ``limit`` due messages of one suspicion, highest priority first, then oldest.

    They begin as batch ``batch_id`` at once when ``limit`` of them were there, or when ``fill`` is false;
    otherwise they are only held (buffered), and begin later with ``Begin``. Without ``batch_id`` they are
    only held. Nothing is taken while ``max_concurrency`` batches of the queue are in flight anywhere.
    Result: ``Taken``.
    """

    queue: str
    suspicion: int
    limit: int
    batch_id: str | None = None
    fill: bool = True
    max_concurrency: int | None = None
    #: Seconds before a message that ran in the alone lane of a worker that died runs again.
    crash_delay: float = 1.0


@dataclass(frozen=True, slots=True)
class Taken:
    """The deliveries of a ``Take``, and whether they have begun."""

    deliveries: list[Delivery]
    begun: bool
    #: Nothing was taken because ``max_concurrency`` forbids it now.
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Begin:
    """Mark held messages as running in ``batch_id``. Result: ``Begun``."""

    queue: str
    batch_id: str
    deliveries: Sequence[Delivery]
    max_concurrency: int | None = None
    crash_delay: float = 1.0


@dataclass(frozen=True, slots=True)
class Begun:
    """Whether the batch may run: ``busy`` when ``max_concurrency`` forbids it now, ``lost`` the deliveries
    whose lease had ended (they run elsewhere).
    """

    ok: bool
    busy: bool = False
    lost: Sequence[Delivery] = ()


@dataclass(frozen=True, slots=True)
class Settle:
    """Make outcomes durable, each with its own fate. Result: the deliveries that were not ours any more.

    A retry's copy, a dead letter's copy and the removal of the original are one step, or the copy is
    confirmed before the original is removed.
    """

    queue: str
    items: Sequence[tuple[Delivery, Outcome]]
    dead_letter_queue: str | None
    dead_letter_delay: int = 0
    #: Seconds since the epoch: when the outcomes were decided.
    at: float = 0.0
    #: Every outcome is an ack: by far the commonest batch.
    all_acked: bool = False
    #: Attempts to charge beyond the handler's own: (message id) -> suspicion to carry on with.
    suspicion: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Return held or abandoned messages, uncharged. ``hold`` seconds pass before they are due again."""

    deliveries: Sequence[Delivery]
    hold: float = 0.0


Move = Take | Begin | Settle | GiveBack


class Intake(Protocol):
    """The consuming side of a broker in one worker. Used from the consumer's I/O thread only."""

    def fileno(self) -> int:
        """A descriptor that becomes readable when there may be something to take; -1 when there is none."""

    def drain(self) -> None:
        """Forget the news that made ``fileno`` readable."""

    def turn(self, moves: Sequence[Move]) -> list[object]:
        """Carry out the moves; one result per move. Raises BrokerError when none was carried out."""

    def suspects(self, queues: Iterable[str]) -> dict[str, dict[int, int]]:
        """Where messages that came back wait: queue -> suspicion -> best priority, including that of the
        fresh ones (suspicion 0) of such a queue. Queues without any are left out.
        """

    def next_due(self, queues: Iterable[str]) -> float | None:
        """When the next delayed message of these queues is due, in seconds since the epoch."""

    def close(self) -> None:
        """Give back what is held and let go of the broker."""


class Broker(Protocol):
    """A broker as producers and operators see it. Safe in threads and after a fork."""

    #: The family's name: ``sqlite``, later ``rabbitmq`` and ``redis``.
    family: str

    def declare(self, queues: Iterable[str]) -> None:
        """Make sure that the queues exist; an existing queue is never changed."""

    def publish(self, messages: Sequence[OutgoingMessage], *, timeout: float | None = None) -> None:
        """Store all messages and return when the broker has confirmed them.

        ``timeout`` in seconds. Raises BrokerUnavailable or BrokerFull (certain: nothing was stored) or
        SendUncertain (unknown).
        """

    def backlog(self, queue: str) -> Backlog:
        """What waits in the queue now."""

    def peek(self, queue: str, limit: int = 10) -> list[Delivery]:
        """Look at up to ``limit`` messages without taking them."""

    def purge(self, queue: str) -> int:
        """Remove every message that is not in flight; returns how many."""

    def intake(self) -> Intake:
        """The consuming side, for one worker."""

    def close(self) -> None:
        """Let go of connections and files."""
