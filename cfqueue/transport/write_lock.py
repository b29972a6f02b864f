"""The lock that every writer of a database takes: an exclusive ``flock`` on a side file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Seconds that closing waits for a thread that still holds the lock.
_CLOSE_SECONDS = 1.0


class _Waiter:
    """A thread that waits in a blocking ``flock``, which knows no deadline, for one that has one.

    The kernel wakes blocked waiters at once; polling instead tripled the 99th percentile of waits among
    three writers. Whoever gives up leaves the thread waiting; the next one takes over its place, and a
    lock that nobody wants any more is given back as soon as it comes.
    """

    def __init__(self, descriptor: int) -> None:
        # Of the same open file, hence the same lock; its own, so that the number stays valid for it.
        self._descriptor = os.dup(descriptor)
        self._ended = False
        self._gate = threading.Lock()
        self._ask = threading.Semaphore(0)
        self._granted = threading.Semaphore(0)
        self._wanted = False
        self.pending = False
        threading.Thread(target=self._run, name="cfqueue-lock", daemon=True).start()

    def get(self, deadline: float) -> bool:
        """Have the lock before ``deadline`` (monotonic seconds), or False."""
        with self._gate:
            self._wanted = True
            if not self.pending:
                self.pending = True
                self._ask.release()
        try:
            if self._granted.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
                return True
        except BaseException:
            if self._withdraw():
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            raise
        return self._withdraw()

    def _withdraw(self) -> bool:
        """Want it no more; True when it came in the last moment."""
        with self._gate:
            self._wanted = False
            return self._granted.acquire(blocking=False)

    def _run(self) -> None:
        while True:
            self._ask.acquire()
            if self._ended:
                break
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            with self._gate:
                self.pending = False
                if self._wanted:
                    self._wanted = False
                    self._granted.release()
                else:
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self.close()

    def end(self) -> None:
        """Let the thread go, once it has what it waits for."""
        self._ended = True
        self._ask.release()

    def close(self) -> None:
        """Close the descriptor; in a child, which has no such thread, at once."""
        os.close(self._descriptor)


class WriteLock:
    """An exclusive ``flock`` on a side file: one writer of the database at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._waiter: _Waiter | None = None
        # Threads of this process share the descriptor, so flock does not keep them from each other.
        self._turn = threading.Lock()

    @contextmanager
    def held(self, deadline: float) -> Iterator[bool]:
        """Hold the lock; False when it was not had before ``deadline`` (monotonic seconds)."""
        turn = self._turn
        if not turn.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            yield False
            return
        try:
            self._open()
            try:
                yield self._had(self._descriptor, deadline)
            finally:
                # Unlocking what is not locked does no harm, unless the waiter is about to have it.
                if self._waiter is None or not self._waiter.pending:
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        finally:
            turn.release()

    def _open(self) -> None:
        if self._descriptor >= 0 and os.fstat(self._descriptor).st_nlink == 0:
            # Somebody removed the folder: a lock on a file without a name excludes nobody.
            self._close()
        if self._descriptor < 0:
            Path(self._path).parent.mkdir(exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def _had(self, descriptor: int, deadline: float) -> bool:
        if self._waiter is None or not self._waiter.pending:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        if self._waiter is None:
            self._waiter = _Waiter(descriptor)
        return self._waiter.get(deadline)

    def close(self) -> None:
        """Close the descriptor; it is opened again when needed."""
        turn = self._turn
        had = turn.acquire(timeout=_CLOSE_SECONDS)
        self._close()
        if had:
            turn.release()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.end()

    def forked(self) -> None:
        """In a child: it shares the parent's lock as long as it keeps a descriptor of it."""
        self._turn = threading.Lock()
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            with contextlib.suppress(OSError):
                waiter.close()
        self._close()
