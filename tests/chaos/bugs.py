"""Seeded bugs: what the product must never do, done on purpose inside the workers of a run.

They prove that the checker notices. The product knows nothing of them: each replaces a part of it in a
process that was started with ``CHAOS_BUG=<name>``, before the pool forks. When a part has moved, the
patch fails loudly, and the scenario's own control run tells a moved part from a missed bug.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cfqueue.brokers.base import Begin, Begun, Move, Settle, Take, Taken
from cfqueue.brokers.sql import SQLIntake
from cfqueue.consumer import child
from cfqueue.messages.outcome import ACK, Retry
from cfqueue.transport import statements
from cfqueue.transport.owner import Owner

from .environment import Environment

Turn = Callable[[SQLIntake, Sequence[Move]], list[object]]


def install(name: str, environment: Environment) -> None:
    """Put the bug of this name into this process."""
    BUGS[name](environment)


def ack_before_run(_: Environment) -> None:
    """Messages are acked as soon as their batch has begun: a crash of the handler loses them."""
    turn: Turn = SQLIntake.turn

    def acking(self: SQLIntake, moves: Sequence[Move]) -> list[object]:
        results = turn(self, moves)
        for move, result in zip(moves, results, strict=True):
            if isinstance(move, Take) and isinstance(result, Taken) and result.begun:
                turn(self, [Settle(move.queue, [(d, ACK) for d in result.deliveries], None)])
            if isinstance(move, Begin) and isinstance(result, Begun) and result.ok:
                turn(self, [Settle(move.queue, [(d, ACK) for d in move.deliveries], None)])
        return results

    _replace(SQLIntake, "turn", acking)


def error_swallowed(_: Environment) -> None:
    """What a handler raises is forgotten: its messages are acked."""
    invoke: Callable[..., Any] = vars(child)["invoke"]

    def swallowing(*arguments: Any) -> Any:
        try:
            return invoke(*arguments)
        except Exception:
            return None

    _replace(child, "invoke", swallowing)


def lease_not_renewed(_: Environment) -> None:
    """A worker never beats, so others believe that it has stopped while it works."""
    _replace(Owner, "beat", lambda _: None)


def fencing_off(_: Environment) -> None:
    """A late settle counts, although the message belongs to another worker by now."""
    changed = 0
    for name, text in list(vars(statements).items()):
        if isinstance(text, str) and not name.startswith("__"):
            free = text.replace("AND m.token = j.value", "").replace("AND m.token = v.token", "")
            free = free.replace("id = ? AND token = ?", "id = ? AND ? IS NOT NULL")
            if free != text:
                setattr(statements, name, free)
                changed += 1
    if not changed:
        raise LookupError("No statement compares tokens any more; this bug needs a new place.")


def removed_before_copy(environment: Environment) -> None:
    """A message to be retried is removed first and stored again afterwards; a crash may come between."""
    turn: Turn = SQLIntake.turn

    def removing(self: SQLIntake, moves: Sequence[Move]) -> list[object]:
        for move in moves:
            if isinstance(move, Settle) and any(isinstance(outcome, Retry) for _, outcome in move.items):
                turn(self, [replace(move, items=[(delivery, ACK) for delivery, _ in move.items])])
                environment.gate("removed").touch()
                threading.Event().wait()  # here the scenario kills this process
        return turn(self, moves)

    _replace(SQLIntake, "turn", removing)


def _replace(owner: Any, name: str, new: Any) -> None:
    if not hasattr(owner, name):
        raise LookupError(f"{owner!r} has no {name} any more; this bug needs a new place.")
    setattr(owner, name, new)


BUGS: dict[str, Callable[[Environment], None]] = {
    function.__name__: function
    for function in (ack_before_run, error_swallowed, lease_not_renewed, fencing_off, removed_before_copy)
}
