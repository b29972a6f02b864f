"""The I/O loop of cfqueue's own: one thread that owns the intake, the timers and all decisions.

It exists beside Celery's loop because a handler in the solo pool blocks that one for as long as it
runs, and because Celery's reconnects reset every descriptor in it (measured; see docs/decisions).
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from cfqueue import clock

logger = logging.getLogger("cfqueue.consumer")

#: Seconds that the loop sleeps at most; what wakes it earlier is news, a timer or an event.
_LONGEST_SLEEP = 5.0
#: Seconds between attempts after an unexpected error, so that a defect cannot spin the thread.
_PAUSE_AFTER_ERROR = 1.0


class Work(Protocol):
    """What the loop drives."""

    def descriptors(self) -> list[int]:
        """What to wait for: the loop takes a turn when one of them becomes readable."""

    def readable(self, descriptor: int) -> None:
        """This descriptor became readable."""

    def turn(self) -> float | None:
        """Do what is due; return the monotonic time of the next timer, or None."""

    def close(self) -> None:
        """The loop has ended."""


class IOLoop:
    """A thread that runs ``work.turn()`` whenever there is news, an event, or a timer is due."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._events: deque[Callable[[], None]] = deque()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._awake = False
        self._stopping = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cfqueue-consumer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def started(self) -> bool:
        """Whether the thread was ever started."""
        return self._thread.ident is not None

    def call(self, event: Callable[[], None]) -> None:
        """Run ``event`` on the loop's thread, soon. From any thread."""
        self._events.append(event)
        self.wake()

    def wake(self) -> None:
        """Make the loop take a turn. From any thread."""
        if not self._awake:
            self._awake = True
            # The pipe is full, so the loop is awake; or closed, so it has ended.
            with contextlib.suppress(OSError):
                os.write(self._wake_w, b"w")

    def stop(self, timeout: float | None = None) -> bool:
        """End the thread after its present turn; False when it did not end within ``timeout`` seconds."""
        self._stopping = True
        self._awake = False
        self.wake()
        if self.started and threading.current_thread() is not self._thread:
            return self._ended.wait(timeout)
        return True

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        finally:
            self._work.close()
            self._ended.set()
            os.close(self._wake_r)
            os.close(self._wake_w)

    def _turn(self) -> None:
        deadline: float | None
        try:
            while self._events:
                self._events.popleft()()
            deadline = self._work.turn()
        except Exception:
            # Nothing may end this thread while the worker lives: a worker that looks alive and consumes
            # nothing is the worst of failures. The error is logged and the turn taken again.
            logger.exception("cfqueue: unexpected error in the consumer loop; trying again")
            deadline = clock.monotonic() + _PAUSE_AFTER_ERROR
        if not self._events and not self._stopping:
            self._sleep(deadline)

    def _sleep(self, deadline: float | None) -> None:
        timeout = _LONGEST_SLEEP
        if deadline is not None:
            timeout = min(timeout, max(0.0, deadline - clock.monotonic()))
        poller = select.poll()
        poller.register(self._wake_r, select.POLLIN)
        for descriptor in self._work.descriptors():
            poller.register(descriptor, select.POLLIN)
        ready = poller.poll(timeout * 1000)
        for descriptor, _ in ready:
            if descriptor == self._wake_r:
                with contextlib.suppress(BlockingIOError):
                    while os.read(self._wake_r, 4096):
                        pass
                # Only now: a wake-up between the two, in the other order, would lose its byte and leave the
                # flag set, and every later one would be swallowed.
                self._awake = False
            else:
                self._work.readable(descriptor)
