"""What can be asked of a Store, as plain data; each kind becomes one statement of a transaction.

Within one `Store.submit` the kinds run in a fixed order, whatever the order of the list: Put, Ack,
Retry, Move, Release, Reap, Start, Claim. So a batch can be settled and the next one claimed in one
transaction, and what was just settled no longer counts against ``max_concurrency``.
Times are milliseconds since the epoch. A lease is ``(row id, token)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: A row id and the token under which it was leased: what every settle names.
Lease = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """One message to be stored. ``headers_json`` and ``properties_json`` are JSON objects as text."""

    queue: str
    headers_json: str
    properties_json: str | None
    body: str | bytes
    size: int
    priority: int
    due_ms: int
    timestamp_ms: int
    expires_ms: int | None
    message_id: str
    content_type: str | None = "application/json"
    content_encoding: str | None = "utf-8"


@dataclass(frozen=True, slots=True)
class Put:
    """Store messages. Result: the list of their row ids."""

    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Claim:
    """Lease up to ``limit`` due messages of one queue. Result: a list of `Leased`.

    Order: priority 9 to 0, then due time, then id. ``suspicion`` None takes any, cleaner ones first
    within a priority. With ``batch`` the leased rows count as *started* in that batch, unless ``fill``
    is set and fewer than ``limit`` were found: then they are leased but not started.
    ``max_concurrency``: lease nothing while that many started batches of the queue live.
    ``crash_delay_s``: how long a started message of suspicion 2 waits after its owner died, in seconds.
    """

    owner: str
    queue: str
    limit: int
    suspicion: int | None = 0
    now_ms: int = 0
    batch: str | None = None
    fill: bool = False
    max_concurrency: int | None = None
    crash_delay_s: int = 1


@dataclass(slots=True)
class Leased:
    """One leased message. ``started``: it counts as running in the batch that the claim named."""

    id: int
    token: int
    queue: str
    attempts: int
    suspicion: int
    priority: int
    due_ms: int
    timestamp_ms: int
    expires_ms: int | None
    first_failed_ms: int | None
    size: int
    message_id: str
    content_type: str | None
    content_encoding: str | None
    headers: dict[str, Any]
    properties: dict[str, Any] | None
    body: str | bytes
    started: bool = False

    @property
    def lease(self) -> Lease:
        """The pair that settles this message."""
        return (self.id, self.token)


@dataclass(frozen=True, slots=True)
class Start:
    """Mark leases as running in ``batch``: all of them or none. Result: `Started`."""

    owner: str
    batch: str
    leases: Sequence[Lease]
    max_concurrency: int | None = None
    queue: str = ""
    crash_delay_s: int = 1


@dataclass(frozen=True, slots=True)
class Started:
    """Whether a batch was started; truthy when it was.

    When not: ``lost`` names the ids whose leases are ours no more; none lost means that
    ``max_concurrency`` batches of the queue are running already.
    """

    started: bool
    lost: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return self.started


@dataclass(frozen=True, slots=True)
class Ack:
    """Remove leased messages. Result: the frozenset of ids that were not ours any more."""

    leases: Sequence[Lease]


@dataclass(frozen=True, slots=True)
class Retry:
    """Give messages back for another attempt.

    Items: ``(id, token, attempts, due_ms, suspicion, first_failed_ms)``, the values to be stored.
    Result: the frozenset of ids that were not ours any more.
    """

    items: Sequence[tuple[int, int, int, int, int, int | None]]


@dataclass(frozen=True, slots=True)
class Move:
    """Hand messages over to another queue as fresh ones (attempts 1, suspicion 0, no expiry).

    Items: ``(id, token, to_queue, due_ms, header_patch)``; the patch is merged into the headers, None
    removes a key. Result: the frozenset of ids that were not ours any more.
    """

    items: Sequence[tuple[int, int, str, int, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Release:
    """Give messages back unchanged and uncharged, to be had again in ``hold_ms`` milliseconds.

    Result: the frozenset of ids that were not ours any more.
    """

    leases: Sequence[Lease]
    hold_ms: int = 0


@dataclass(frozen=True, slots=True)
class Reap:
    """Take away everything an owner leases. Result: how many messages came back.

    ``clean``: the owner left in order, nothing is held against its messages. Otherwise it died or
    stopped: what it had started is suspected, as `cfqueue.messages.crash.returned` says.
    """

    owner: str
    now_ms: int
    clean: bool = False


#: A message that is dropped on purpose is removed just as an acked one.
Drop = Ack

Op = Put | Claim | Start | Ack | Retry | Move | Release | Reap


@dataclass(frozen=True, slots=True)
class Backlog:
    """How full a queue is. ``oldest_ms``: when the oldest waiting message was first sent."""

    count: int
    bytes: int
    oldest_ms: int | None
    delayed: int
    in_flight: int
    suspects: int
