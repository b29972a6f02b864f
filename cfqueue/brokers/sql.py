"""The SQL driver: the embedded broker's file, without kombu in between.

A retry, a dead letter and the removal of the original are one UPDATE of one row, so no crash can come
between them; every settle names the lease's fencing token, so a late one changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from cfqueue import clock
from cfqueue.brokers.base import Backlog, Begin, Begun, GiveBack, Move, Settle, Take, Taken
from cfqueue.database import sqlite_path
from cfqueue.messages import FRESH, Delivery, OutgoingMessage, dead_letter_headers
from cfqueue.messages.envelope import without_unsaid
from cfqueue.messages.outcome import Ack, DeadLetter, Drop, Retry
from cfqueue.transport import operations as ops
from cfqueue.transport.store import Store

#: Best priority of what is due, by queue and suspicion: thirty single steps into the index per queue.
_WAITING = """
WITH level(suspicion, priority) AS (
  SELECT s.value, p.value FROM json_each('[0,1,2]') s, json_each('[9,8,7,6,5,4,3,2,1,0]') p)
SELECT q.value, level.suspicion, max(level.priority) FROM json_each(:queues) q, level
WHERE EXISTS (
  SELECT 1 FROM cfqueue_messages m WHERE m.owner IS NULL AND m.queue = q.value
  AND m.suspicion = level.suspicion AND m.priority = level.priority AND m.due_ms <= :now)
GROUP BY q.value, level.suspicion
"""

#: Batches of a queue in flight in all workers: what ``max_concurrency`` limits.
_RUNNING = "SELECT count(DISTINCT batch) FROM cfqueue_messages WHERE queue = :queue AND batch IS NOT NULL"

#: Seconds that a turn waits for the write lock. It is tried again for ever; but a worker that is told to stop
#: must not sit in one long wait.
_PATIENCE = 5.0

_DUMP = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class SQLBroker:
    """The broker in one SQLite file. Safe in threads and after a fork."""

    family = "sqlite"

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def at(cls, url: str) -> SQLBroker:
        """The driver for ``cfqueue+sqlite:////abs/path.db``."""
        return cls(sqlite_path(url))

    @property
    def store(self) -> Store:
        """The process's store for the file; after a fork, the child's own."""
        return Store.at(self.path)

    def declare(self, queues: Iterable[str]) -> None:
        """Make the queues known, so that they are listed before their first message."""
        for queue in queues:
            self.store.declare(queue)

    def publish(self, messages: Sequence[OutgoingMessage], *, timeout: float | None = None) -> None:
        """Store all messages in one transaction, synced to disk."""
        now_ms = clock.now_ms()
        self.store.submit([ops.Put([_row(message, now_ms) for message in messages])], timeout=timeout)

    def backlog(self, queue: str) -> Backlog:
        """What waits in the queue now, exact."""
        b = self.store.backlog(queue)
        return Backlog(b.count, b.bytes, b.oldest_ms, b.delayed, b.in_flight, b.suspects)

    def peek(self, queue: str, limit: int = 10) -> list[Delivery]:
        """Look without taking: no lease, no order and no suspicion changes."""
        return [_delivery(leased) for leased in self.store.peek(queue, limit)]

    def purge(self, queue: str) -> int:
        """Remove every message that no worker holds."""
        return self.store.purge(queue)

    def intake(self) -> SQLIntake:
        """The consuming side for one worker."""
        return SQLIntake(self.store)

    def close(self) -> None:
        """Nothing to do: the store belongs to the process and is flushed when it ends."""


class SQLIntake:
    """The consuming side: leases under this process's owner, wake-ups by datagram."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._owner = store.owner()
        self._listener = store.listen()

    def fileno(self) -> int:
        """Readable when somebody has published, or given back."""
        return self._listener.fileno()

    def drain(self) -> None:
        """Forget the datagrams that have arrived."""
        self._listener.drain()

    def turn(self, moves: Sequence[Move]) -> list[object]:
        """All moves in one transaction; one result per move.

        When there is nothing but to take, a read asks first whether there is anything: an idle worker never
        takes the write lock.
        """
        if all(type(move) is Take for move in moves) and not self._anything(moves):
            return [Taken([], False) for _ in moves]
        asked: list[ops.Op] = []
        spans: list[tuple[int, int]] = []
        for move in moves:
            start = len(asked)
            asked.extend(self._operations(move))
            spans.append((start, len(asked)))
        answers = self._store.submit(asked, timeout=_PATIENCE)
        return [self._answer(move, answers[a:b]) for move, (a, b) in zip(moves, spans, strict=True)]

    def _anything(self, moves: Sequence[Move]) -> bool:
        now_ms = clock.now_ms()
        return any(self._store.is_waiting(move.queue, now_ms) for move in moves if type(move) is Take)

    def _answer(self, move: Move, answers: list[Any]) -> object:
        if type(move) is Take and not answers[0] and move.max_concurrency is not None:
            running = int(self._store.read_one(_RUNNING, {"queue": move.queue})[0])
            return Taken([], False, busy=running >= move.max_concurrency)
        return _answer(move, answers)

    def suspects(self, queues: Iterable[str]) -> dict[str, dict[int, int]]:
        """Read from the index of waiting messages, a few steps per queue; no lock is taken."""
        found: dict[str, dict[int, int]] = {}
        values = {"queues": json.dumps(list(queues)), "now": clock.now_ms()}
        for queue, suspicion, priority in self._store.read_all(_WAITING, values):
            found.setdefault(queue, {})[suspicion] = priority
        return {queue: waiting for queue, waiting in found.items() if waiting.keys() != {FRESH}}

    def next_due(self, queues: Iterable[str]) -> float | None:
        """When the earliest delayed message is due."""
        due = self._store.next_due(list(queues), clock.now_ms())
        return None if due is None else due / 1000

    def close(self) -> None:
        """Stop listening; the owner is the process's and ends with it."""
        self._listener.close()

    def _operations(self, move: Move) -> list[ops.Op]:
        match move:
            case Take():
                return [
                    ops.Claim(
                        self._owner.id,
                        move.queue,
                        move.limit,
                        move.suspicion,
                        clock.now_ms(),
                        move.batch_id,
                        move.fill,
                        move.max_concurrency,
                        round(move.crash_delay),
                    )
                ]
            case Begin():
                leases = [delivery.tag for delivery in move.deliveries]
                return [
                    ops.Start(
                        self._owner.id,
                        move.batch_id,
                        leases,
                        move.max_concurrency,
                        move.queue,
                        round(move.crash_delay),
                    )
                ]
            case Settle():
                return _settle(move)
            case GiveBack():
                return [ops.Release([d.tag for d in move.deliveries], round(move.hold * 1000))]


def _settle(move: Settle) -> list[ops.Op]:
    """Up to three operations; most batches need one."""
    if move.all_acked:
        return [ops.Ack([delivery.tag for delivery, _ in move.items])]
    # Rounded down, so that what is to be delivered at once is due at once; a delay is never cut short by it.
    at_ms = int(move.at * 1000)
    acked: list[ops.Lease] = []
    retried: list[tuple[int, int, int, int, int, int | None]] = []
    buried: list[tuple[int, int, str, int, dict[str, Any]]] = []
    for delivery, outcome in move.items:
        row, token = delivery.tag
        match outcome:
            case Ack() | Drop():
                acked.append((row, token))
            case Retry():
                first = at_ms if delivery.first_failed_ms is None else delivery.first_failed_ms
                due = at_ms + (outcome.delay_seconds * 1000 + 1 if outcome.delay_seconds else 0)
                suspicion = move.suspicion.get(delivery.id, 0)
                retried.append((row, token, delivery.attempts + 1, due, suspicion, first))
            case DeadLetter() if move.dead_letter_queue is not None:
                first = at_ms if delivery.first_failed_ms is None else delivery.first_failed_ms
                headers = dead_letter_headers(
                    outcome.reason, move.queue, delivery.attempts, first, at_ms, outcome.error
                )
                # The sender's result is the failure; an ack in the dead-letter queue must not overwrite it.
                headers["ignore_result"] = True
                due = at_ms + move.dead_letter_delay * 1000
                buried.append((row, token, move.dead_letter_queue, due, headers))
            case DeadLetter():
                acked.append((row, token))
    found: list[ops.Op] = []
    if acked:
        found.append(ops.Ack(acked))
    if retried:
        found.append(ops.Retry(retried))
    if buried:
        found.append(ops.Move(buried))
    return found


def _answer(move: Move, answers: list[Any]) -> object:
    match move:
        case Take():
            leased = answers[0]
            return Taken([_delivery(one) for one in leased], bool(leased) and leased[0].started)
        case Begin():
            lost = set(answers[0].lost)
            gone = [delivery for delivery in move.deliveries if delivery.tag[0] in lost]
            return Begun(bool(answers[0]), busy=not answers[0] and not gone, lost=gone)
        case Settle():
            fenced = frozenset().union(*answers)
            return [delivery for delivery, _ in move.items if delivery.tag[0] in fenced]
        case GiveBack():
            return []


def _row(message: OutgoingMessage, now_ms: int) -> ops.Row:
    return ops.Row(
        message.queue,
        _DUMP(without_unsaid(message.headers)),
        None,
        message.body,
        message.size,
        message.priority,
        now_ms + message.delay_seconds * 1000,
        message.timestamp_ms,
        message.expires_ms,
        message.id,
    )


def _delivery(leased: ops.Leased) -> Delivery:
    return Delivery(
        leased.queue,
        leased.message_id,
        leased.headers,
        leased.body,
        leased.content_type or "",
        leased.content_encoding or "",
        leased.attempts,
        leased.suspicion,
        leased.priority,
        leased.timestamp_ms,
        leased.expires_ms,
        leased.first_failed_ms,
        (leased.id, leased.token),
    )
