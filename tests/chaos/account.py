"""Turns the lines of a ledger into sends, runs, faults and dead letters. Judges nothing.

A *run* is one message in one call of a handler; a batch of ten is ten runs with the same ``call``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .ledger import Event


@dataclass(slots=True)
class Sent:
    """What a producer knows of one message. ``outcome`` is UNCERTAIN until the call has returned."""

    key: str
    queue: str
    checksum: int
    delay: float
    began: float
    outcome: str = "UNCERTAIN"
    id: str | None = None


@dataclass(slots=True)
class Run:
    """One message in one call of a handler. ``end`` is None when the handler never returned."""

    key: str
    id: str
    attempt: int
    checksum: int
    call: str
    worker: str
    pid: int
    queue: str
    size: int
    start: float
    end: float | None = None
    outcome: str | None = None  # ack or retry
    delay: float = 0.0


@dataclass(slots=True)
class Window:
    """When a process could not keep its word. ``pid`` None: the whole worker; ``until`` grows for a stop."""

    kind: str
    worker: str
    pid: int | None
    since: float
    until: float

    def overlaps(self, since: float, until: float) -> bool:
        return self.since <= until and self.until >= since


@dataclass(slots=True)
class Account:
    """Everything the ledger says, sorted by what it is about."""

    sent: dict[str, Sent] = field(default_factory=dict)
    sent_twice: list[str] = field(default_factory=list)
    runs: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    calls: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    windows: dict[str, list[Window]] = field(default_factory=lambda: defaultdict(list))
    found_dead: list[Event] = field(default_factory=list)
    dead: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    left: list[Event] = field(default_factory=list)
    stalled: list[Event] = field(default_factory=list)
    errors: list[Event] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def all_windows(self) -> Iterable[Window]:
        for windows in self.windows.values():
            yield from windows


#: Faults that end a whole worker at the moment they are written down.
WORKER_DEATHS = frozenset({"kill-main", "kill-group"})


def read_events(events: Iterable[Event]) -> Account:
    """Sort the events (in the order of time) into an account."""
    account = Account()
    for event in events:
        READERS[event["kind"]](account, event)
    for runs in account.runs.values():
        runs.sort(key=lambda run: run.start)
    return account


def _sending(account: Account, event: Event) -> None:
    for key, checksum, delay in zip(event["keys"], event["sums"], event["delays"], strict=True):
        if key in account.sent:
            account.sent_twice.append(key)
        account.sent[key] = Sent(key, event["queue"], checksum, delay, event["t"])


def _sent(account: Account, event: Event) -> None:
    for place, key in enumerate(event["keys"]):
        sent = account.sent[key]
        sent.outcome = event["outcome"]
        if event.get("ids"):
            sent.id = event["ids"][place]
    if event["outcome"] != "OK":
        account.errors.append(event)


def _start(account: Account, event: Event) -> None:
    for key, message_id, attempt, checksum in event["messages"]:
        run = Run(
            key=key,
            id=message_id,
            attempt=attempt,
            checksum=checksum,
            call=event["run"],
            worker=event["worker"],
            pid=event["pid"],
            queue=event["queue"],
            size=len(event["messages"]),
            start=event["t"],
        )
        account.runs[key].append(run)
        account.calls[event["run"]].append(run)


def _end(account: Account, event: Event) -> None:
    outcomes = {key: (outcome, delay) for key, outcome, delay in event["outcomes"]}
    for run in account.calls[event["run"]]:
        run.end = event["t"]
        run.outcome, run.delay = outcomes[run.key]


def _dying(account: Account, event: Event) -> None:
    account.faults["died by a handler"] += 1
    worker = event["worker"]
    account.windows[worker].append(Window("dying", worker, event["pid"], event["t"], event["t"]))


def _fault(account: Account, event: Event) -> None:
    kind, worker, windows = event["fault"], event["worker"], account.windows[event["worker"]]
    account.faults[kind] += 1
    if kind in WORKER_DEATHS:
        windows.append(Window(kind, worker, None, event["t"], event["t"]))
    elif kind == "kill-child":
        windows.append(Window(kind, worker, event["victim"], event["t"], event["t"]))
    elif kind == "stop":
        windows.append(Window(kind, worker, None, event["t"], math.inf))
    elif kind == "cont":
        for window in windows:
            if window.kind == "stop" and window.until == math.inf:
                window.until = event["t"]
    elif kind == "found-dead":
        account.found_dead.append(event)


def _dead(account: Account, event: Event) -> None:
    account.dead[event["key"]].append(event)


def _left(account: Account, event: Event) -> None:
    account.left.append(event)


def _stalled(account: Account, event: Event) -> None:
    account.stalled.append(event)


READERS: dict[str, Any] = {
    "sending": _sending,
    "sent": _sent,
    "start": _start,
    "end": _end,
    "dying": _dying,
    "fault": _fault,
    "dead": _dead,
    "left": _left,
    "stalled": _stalled,
}
