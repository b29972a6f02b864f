"""What a run's account says so far: messages seen, handler calls that are open, when anything last moved."""

from __future__ import annotations

import time
from pathlib import Path

from .ledger import Tail


class Progress:
    """Follows the ledger while it is written."""

    def __init__(self, folder: Path) -> None:
        self._tail = Tail(folder)
        self.seen: set[str] = set()
        self.sent = 0
        self.acked: set[str] = set()
        self.dead: set[str] = set()
        #: Handler calls that have begun and not ended: name → (worker, pid). Calls of the dead stay here.
        self.open: dict[str, tuple[str, int]] = {}
        self.workers: set[str] = set()
        self.moved = time.monotonic()

    def update(self) -> None:
        for event in self._tail:
            kind = event["kind"]
            if kind == "start":
                self.seen.update(key for key, *_ in event["messages"])
                self.open[event["run"]] = (event["worker"], event["pid"])
                self.workers.add(event["worker"])
            elif kind == "end":
                self.open.pop(event["run"], None)
                self.acked.update(key for key, outcome, _ in event["outcomes"] if outcome == "ack")
            elif kind == "sent":
                self.sent += len(event["keys"]) if event["outcome"] == "OK" else 0
            elif kind == "dead":
                self.dead.add(event["key"])
            # What the harness itself does is no progress of what it tests.
            if kind != "fault":
                self.moved = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        return time.monotonic() - self.moved

    def busy(self, worker: str) -> set[int]:
        """The processes of this worker that are inside a handler."""
        return {pid for name, pid in self.open.values() if name == worker}
