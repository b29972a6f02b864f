"""How much the handlers of a worker have done, as told by themselves.

Every process of the worker owns one small memory-mapped file, so that counting costs a handler about
a microsecond; the benchmark adds the files up. Times are of the system-wide monotonic clock.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_LAYOUT = struct.Struct("=qqdd")  # handled, of which in the first call, time of the first, of the last


class Counter:
    """Counts for this process; makes a file of its own after a fork. Safe in threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pid = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        now = time.monotonic()
        with self._lock:
            if self._pid != os.getpid():
                self._open()
                self._handled, self._first_count, self._first = 0, count, now
            self._handled += count
            _LAYOUT.pack_into(self._map, 0, self._handled, self._first_count, self._first, now)

    def _open(self) -> None:
        path = self._folder / f"{os.getpid()}.count"
        path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _LAYOUT.size)
        self._pid = os.getpid()


@dataclass(frozen=True)
class Progress:
    """What all processes of a worker have done."""

    handled: int
    #: Messages of the very first call: they are there when the clock starts.
    first_count: int
    first: float
    last: float

    @property
    def rate(self) -> float:
        """Messages per second between the first call and the last, the first one's not counted."""
        return (self.handled - self.first_count) / (self.last - self.first)


def read(folder: Path) -> Progress:
    rows = [_LAYOUT.unpack(path.read_bytes()) for path in folder.glob("*.count")]
    rows = [row for row in rows if row[0]]
    if not rows:
        return Progress(0, 0, 0.0, 0.0)
    first = min(rows, key=lambda row: row[2])
    return Progress(sum(row[0] for row in rows), first[1], first[2], max(row[3] for row in rows))
