"""The account of a run: append-only files, one per process, one JSON line per event.

Each event is one ``os.write`` on a file opened with ``O_APPEND``: it is in the file, whole, when the
call returns, and a process that is killed a moment later cannot take it back. (A process kill does
not lose the page cache, so nothing is synced to disk.) Nothing here knows cfqueue: the account must
not share a mistake with what it judges.

Every event has ``kind``, ``t`` (seconds since the epoch; one machine, so one clock) and ``pid``:

========== =============================================================================================
sending    before a send call: ``keys``, ``sums`` (checksum of each body), ``queue``, ``delays``
sent       after it: ``keys``, ``outcome`` (OK, ERROR: certainly not stored, UNCERTAIN), ``ids``, ``error``
start      a handler got a batch: ``run``, ``worker``, ``queue``, ``messages`` as [key, id, attempt, sum]
dying      the handler is about to kill or hang its process: ``run``, ``worker``, ``key``, ``how``
end        the handler returns: ``run``, ``outcomes`` as [key, outcome, delay]; outcome ack or retry
fault      the harness did something: ``fault``, ``worker``, ``victim`` (pid), or a worker was found dead
dead       a message read from a dead-letter queue: ``key``, ``id``, ``sum``, ``reason``, ``headers``
left       at the end of the run: ``queue``, ``waiting``, ``delayed``, ``leased``
stalled    nothing moved for ``seconds`` although a worker was alive
========== =============================================================================================
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]


def checksum(body: object) -> int:
    """The same number for equal JSON values, in every process."""
    return zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


class Ledger:
    """Writes events of this process; a forked child gets a file of its own at its first event."""

    def __init__(self, folder: Path, role: str) -> None:
        self._folder = folder
        self._role = role
        self._pid = 0
        self._descriptor = -1

    def write(self, kind: str, **fields: Any) -> None:
        pid = os.getpid()
        if self._pid != pid:
            path = self._folder / f"{self._role}-{pid}.jsonl"
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            # Last: another thread must not see the new pid with the old descriptor. Two threads that
            # both open the file append to the same one.
            self._pid = pid
        event = {"kind": kind, "t": time.time(), "pid": pid, **fields}
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        written = os.write(self._descriptor, line)
        if written != len(line):
            raise OSError(f"The ledger took {written} of {len(line)} bytes; the account would be torn.")


class Tail:
    """Reads what was added to all ledger files of a folder since it was last asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: dict[Path, int] = {}

    def __iter__(self) -> Iterator[Event]:
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                data = file.read()
            # Only whole lines: another process may be between two of them, never inside one,
            # but a reader may still see the file grow in the middle of a line.
            end = data.rfind(b"\n") + 1
            self._offsets[path] = self._offsets.get(path, 0) + end
            for line in data[:end].splitlines():
                yield json.loads(line)


def read(folder: Path) -> list[Event]:
    """All events of a finished run, by time."""
    return sorted(Tail(folder), key=lambda event: event["t"])
