"""One transaction for everything that waits: operations made ready, run in groups, and their results.

An operation is made ready in the caller's thread (`ready`), so that between BEGIN and COMMIT there is
only the joining of texts and the execution of statements. Results are read after the commit.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cfqueue import clock
from cfqueue.transport import statements as sql
from cfqueue.transport.operations import (
    Ack,
    Claim,
    Lease,
    Leased,
    Move,
    Op,
    Put,
    Reap,
    Release,
    Retry,
    Start,
    Started,
)

#: What a queue name stands for when the rows of several, unknown queues changed.
ANY_QUEUE = "*"

#: What a row costs beside its body: headers, and the pages that change with it.
_ROW_BYTES = 1000

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Fenced(Exception):
    """A settle met rows whose token had moved on: run again, one operation at a time."""


@dataclass(slots=True)
class Ready:
    """An operation with its parameters rendered; ``raw`` is what its statements gave."""

    op: Op
    count: int = 1
    text: str = ""
    values: list[Any] = field(default_factory=list)
    wakes: frozenset[str] = frozenset()
    #: About how many bytes it writes to the log.
    weight: int = 0
    raw: Any = None


def _pairs(leases: Sequence[Lease]) -> str:
    return ",".join([f'"{row}":{token}' for row, token in leases])


_SOME = frozenset({ANY_QUEUE})


def ready(op: Op) -> Ready:
    """Render the parameters of ``op``; raises TypeError or ValueError for what SQLite cannot store."""
    if isinstance(op, Put):
        values: list[Any] = []
        for row in op.rows:
            values += (
                row.queue, row.headers_json, row.properties_json, row.body, row.size, row.priority,
                row.due_ms, row.timestamp_ms, row.expires_ms, row.message_id, row.content_type,
                row.content_encoding,
            )  # fmt: skip
        weight = sum([row.size + _ROW_BYTES for row in op.rows])
        wakes = frozenset([row.queue for row in op.rows])
        return Ready(op, len(op.rows), values=values, wakes=wakes, weight=weight)
    if isinstance(op, Ack):
        return Ready(op, len(op.leases), _pairs(op.leases))
    if isinstance(op, (Release, Start)):
        return Ready(
            op,
            len(op.leases),
            _pairs(op.leases),
            wakes=_SOME if isinstance(op, Release) else frozenset(),
        )
    if isinstance(op, Retry):
        return Ready(op, len(op.items), _encode(op.items)[1:-1], wakes=_SOME)
    if isinstance(op, Move):
        return Ready(
            op, len(op.items), _encode(op.items)[1:-1], wakes=frozenset(item[2] for item in op.items)
        )
    return Ready(op, wakes=_SOME if isinstance(op, Reap) else frozenset())


Execute = Callable[..., sqlite3.Cursor]


def is_single(group: Sequence[Ready]) -> bool:
    """True when one statement does it all, so that SQLite's own autocommit is the transaction."""
    return len(group) == 1 and isinstance(group[0].op, Put) and 0 < group[0].count <= sql.PUT_ROWS


def run(execute: Execute, group: Sequence[Ready], *, careful: bool = False) -> None:
    """Execute every operation of ``group``, by kind, inside the caller's transaction.

    Raises Fenced when a settle missed a row; the caller rolls back and asks again with ``careful``.
    """
    kinds: dict[type, list[Ready]] = {}
    for item in group:
        kinds.setdefault(type(item.op), []).append(item)
    if Put in kinds:
        _put(execute, kinds[Put])
    for kind, settle in _SETTLES:
        if kind not in kinds:
            continue
        if careful:
            for item in kinds[kind]:
                _settle_carefully(execute, item, settle)
        else:
            for item in kinds[kind]:
                item.raw = frozenset()
            settle(execute, kinds[kind])
    for item in kinds.get(Reap, ()):
        _reap(execute, item)
    for item in kinds.get(Start, ()):
        _start(execute, item)
    for item in kinds.get(Claim, ()):
        _claim(execute, item)


def _put(execute: Execute, items: list[Ready]) -> None:
    total = sum(item.count for item in items)
    if not total:
        for item in items:
            item.raw = []
        return
    values = items[0].values if len(items) == 1 else [value for item in items for value in item.values]
    last: int | None = 0
    for start in range(0, total, sql.PUT_ROWS):
        rows = min(sql.PUT_ROWS, total - start)
        part = values if rows == total else values[start * 12 : (start + rows) * 12]
        last = execute(sql.put(rows), part).lastrowid
    first = (last or 0) - total + 1
    for item in items:
        item.raw = range(first, first + item.count)
        first += item.count


def _expect(found: int, items: list[Ready]) -> None:
    if found != sum(item.count for item in items):
        raise Fenced


def _ack(execute: Execute, items: list[Ready]) -> None:
    leases = "{" + ",".join([item.text for item in items if item.text]) + "}"
    _expect(execute(sql.ACK, {"leases": leases}).rowcount, items)


def _release(execute: Execute, items: list[Ready]) -> None:
    dues: dict[int, list[Ready]] = {}
    for item in items:
        hold = item.op.hold_ms if isinstance(item.op, Release) else 0
        dues.setdefault(clock.now_ms() + hold if hold else 0, []).append(item)
    for due, held in dues.items():
        leases = "{" + ",".join([item.text for item in held if item.text]) + "}"
        _expect(execute(sql.RELEASE, {"leases": leases, "due": due}).rowcount, held)


def _retry(execute: Execute, items: list[Ready]) -> None:
    rows = "[" + ",".join([item.text for item in items if item.text]) + "]"
    _expect(execute(sql.RETRY, {"items": rows}).rowcount, items)


def _move(execute: Execute, items: list[Ready]) -> None:
    rows = "[" + ",".join([item.text for item in items if item.text]) + "]"
    _expect(execute(sql.MOVE, {"items": rows}).rowcount, items)


_SETTLES: tuple[tuple[type, Callable[[Execute, list[Ready]], None]], ...] = (
    (Ack, _ack),
    (Retry, _retry),
    (Move, _move),
    (Release, _release),
)


def leases_of(op: Op) -> list[Lease]:
    """The leases that a settle names."""
    if isinstance(op, (Ack, Release, Start)):
        return list(op.leases)
    if isinstance(op, (Retry, Move)):
        return [(item[0], item[1]) for item in op.items]
    return []


def _settle_carefully(execute: Execute, item: Ready, settle: Callable[[Execute, list[Ready]], None]) -> None:
    leases = leases_of(item.op)
    ours = set(json.loads(execute(sql.OURS, {"leases": "{" + _pairs(leases) + "}"}).fetchone()[0]))
    item.raw = frozenset(row for row, _ in leases if row not in ours)
    if not ours:
        return
    whole = item.count
    item.count = len(ours)
    try:
        settle(execute, [item])
    finally:
        item.count = whole


def _reap(execute: Execute, item: Ready) -> None:
    op = item.op
    assert isinstance(op, Reap)
    if op.clean:
        item.raw = execute(sql.REAP_CLEAN, {"owner": op.owner}).rowcount
    else:
        item.raw = execute(sql.REAP, {"owner": op.owner, "now": op.now_ms}).rowcount


def _start(execute: Execute, item: Ready) -> None:
    op = item.op
    assert isinstance(op, Start)
    found, running = execute(sql.START_CHECK, {"leases": "{" + item.text + "}", "queue": op.queue}).fetchone()
    item.raw = (found, running)
    if found.count(",") + (found != "[]") != item.count:
        return
    if op.max_concurrency is not None and running >= op.max_concurrency:
        return
    execute(sql.START, (op.batch, op.crash_delay_s * 1000, op.owner, found))
    item.raw = None


def _claim(execute: Execute, item: Ready) -> None:
    op = item.op
    assert isinstance(op, Claim)
    values: dict[str, Any] = {"queue": op.queue, "now": op.now_ms or clock.now_ms(), "limit": op.limit}
    if op.max_concurrency is not None:
        values["most"] = op.max_concurrency
        choose = sql.CHOOSE_ANY_BELOW if op.suspicion is None else sql.CHOOSE_BELOW
    else:
        choose = sql.CHOOSE_ANY if op.suspicion is None else sql.CHOOSE
    if op.suspicion is not None:
        values["suspicion"] = op.suspicion
    count, ids, rows = execute(choose, values).fetchone()
    started = op.batch is not None and (not op.fill or count >= op.limit)
    if count:
        execute(sql.TAKE, (op.owner, op.batch if started else None, op.crash_delay_s * 1000, ids))
    item.raw = (ids, rows, started)


def result(item: Ready, reread: Callable[[str], str | None]) -> Any:
    """The result of an operation that was committed; ``reread`` fetches rows whose JSON is broken."""
    op, raw = item.op, item.raw
    if isinstance(op, Put):
        return list(raw)
    if isinstance(op, Start):
        if raw is None:
            return Started(started=True)
        ours = set(json.loads(raw[0]))
        return Started(started=False, lost=tuple(row for row, _ in op.leases if row not in ours))
    if isinstance(op, Claim):
        ids, rows, started = raw
        return leased(ids, rows, reread, started=started) if rows else []
    return raw


def leased(
    ids: str, rows: str, reread: Callable[[str], str | None], *, started: bool = False
) -> list[Leased]:
    """Messages from the JSON text that a claim or a peek gave."""
    try:
        found = [Leased(*row) for row in json.loads(rows)]
    except (ValueError, RecursionError):
        # Another program wrote headers that are not JSON: only that message suffers.
        found = [Leased(*row) for row in json.loads(reread(ids) or "[]")]
        for message in found:
            message.headers = _object(message.headers) or {}
            message.properties = _object(message.properties)
    for message in found:
        message.started = started
        body: Any = message.body
        if type(body) is dict:
            message.body = bytes.fromhex(body["hex"])
    return found


def _object(text: Any) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
