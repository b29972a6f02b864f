"""The lock that every writer of a database takes: an exclusive ``flock`` on a side file."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_log = logging.getLogger("cfqueue.transport")
#: Seconds of waiting after which the log says who holds the lock; once, until it is had again.
COMPLAINT_SECONDS = 1.0
#: Where Linux lists the locks on files, with the pids that took them.
_LOCKS = Path("/proc/locks")
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

    def get(self, deadline: float, complain: Callable[[], None]) -> bool:
        """Have the lock before ``deadline`` (monotonic seconds), or False. A long wait calls ``complain``."""
        with self._gate:
            self._wanted = True
            if not self.pending:
                self.pending = True
                self._ask.release()
        try:
            if _patiently(self._granted, deadline, complain):
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


def _patiently(
    lock: threading.Lock | threading.Semaphore, deadline: float, complain: Callable[[], None]
) -> bool:
    """Acquire before ``deadline``; call ``complain`` when that takes long."""
    left = deadline - time.monotonic()
    if left > COMPLAINT_SECONDS:
        if lock.acquire(timeout=COMPLAINT_SECONDS):
            return True
        complain()
        left = deadline - time.monotonic()
    return lock.acquire(timeout=max(left, 0.0))


class WriteLock:
    """An exclusive ``flock`` on a side file: one writer of the database at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._waiter: _Waiter | None = None
        # Threads of this process share the descriptor, so flock does not keep them from each other.
        self._turn = threading.Lock()
        self._complained = False

    def holder(self) -> str:
        """Who holds the lock, as far as this system tells: "process 123 (celery)"."""
        pid = _holder(self._path)
        if pid is None:
            return "another process"
        if pid == os.getpid():
            return f"another thread of this process ({pid})"
        try:
            name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return f"process {pid}"
        return f"process {pid} ({name})"

    def _complain(self) -> None:
        if not self._complained:
            self._complained = True
            _log.warning(
                "Waiting for the write lock of %s for more than %g s; %s holds it.",
                Path(self._path).parent, COMPLAINT_SECONDS, self.holder(),
            )  # fmt: skip

    @contextmanager
    def held(self, deadline: float) -> Iterator[bool]:
        """Hold the lock; False when it was not had before ``deadline`` (monotonic seconds)."""
        turn = self._turn
        if not _patiently(turn, deadline, self._complain):
            yield False
            return
        try:
            self._open()
            try:
                had = self._had(self._descriptor, deadline)
                if had:
                    self._complained = False
                yield had
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
        return self._waiter.get(deadline, self._complain)

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


def _holder(path: str) -> int | None:
    """The pid of whoever holds the ``flock`` on a file; None where that cannot be known."""
    try:
        inode = str(os.stat(path).st_ino)  # noqa: PTH116 - as a text, below
        lines = _LOCKS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    # "1: FLOCK ADVISORY WRITE <pid> <device>:<inode> 0 EOF"; those who wait have "->" before FLOCK. Some
    # file systems list another device than they tell, so it is the inode that decides.
    pids = {
        int(words[4])
        for words in map(str.split, lines)
        if words[1:2] == ["FLOCK"] and len(words) > 5 and words[5].rpartition(":")[2] == inode
    }
    pids.discard(0)
    return pids.pop() if len(pids) == 1 else None
