"""The only place where time is read, so that tests and the simulator can move it by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall-clock and monotonic time, both in seconds."""

    def now(self) -> float:
        """Seconds since the epoch: what is written down and compared between machines."""

    def monotonic(self) -> float:
        """Seconds that only grow: what a deadline inside one process is measured with."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is moved; both times start at ``start`` and move together."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        """Seconds since the epoch, as set."""
        return self._now

    def monotonic(self) -> float:
        """The same value: a clock moved by hand never goes back."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move forward by ``seconds`` (not negative)."""
        if seconds < 0:
            raise ValueError(f"A clock moves forward only; advance({seconds!r}) was asked for.")
        self._now += seconds


SYSTEM_CLOCK = SystemClock()


def now() -> float:
    """Seconds since the epoch, from the machine."""
    return time.time()


def now_ms() -> int:
    """Milliseconds since the epoch, from the machine; how times travel in messages and rows."""
    return time.time_ns() // 1_000_000


def monotonic() -> float:
    """Seconds that only grow, from the machine."""
    return time.monotonic()
