"""Who leases messages, and how others see that it lives.

An owner is a file in the folder beside the database. Its process holds a POSIX lock on it (children
never inherit such a lock, and no pid is compared: containers that share a volume have pids of their
own), and a thread writes a growing counter into it. The lock is gone: the owner is dead. The lock is
held but the counter stands still: the owner is stopped.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import socket
import threading
import time
from pathlib import Path

from cfqueue.transport.wakeup import Folder

_SUFFIX = ".owner"


class Owner:
    """This process as a holder of leases; ``id`` is what rows carry."""

    def __init__(self, folder: Folder, beat_seconds: float) -> None:
        host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40]
        self.id = f"{host}-{os.getpid()}-{secrets.token_hex(6)}"
        self._folder = folder
        self._path = folder.file(self.id + _SUFFIX)
        self._beat_seconds = beat_seconds
        self._beats = 0
        self._descriptor = self._locked_file()
        self._stop = threading.Event()
        # A number that was closed may be another file's by now: no beat may go there.
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="cfqueue-beat", daemon=True)
        self._thread.start()

    def _locked_file(self) -> int:
        # Under another name until it is locked: a reaper must never meet the file unlocked.
        draft = self._path + ".new"
        self._folder.make()
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(descriptor, self._beat_text(), 0)
            os.rename(draft, self._path)  # noqa: PTH104
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(draft)  # noqa: PTH108
            raise
        return descriptor

    def _beat_text(self) -> bytes:
        return f"{self._beats:>20}\n".encode()

    def _run(self) -> None:
        while not self._stop.wait(self._beat_seconds):
            self.beat()

    def beat(self) -> None:
        """Write the next count; makes the file anew when somebody deleted it."""
        self._beats += 1
        with self._closing, contextlib.suppress(OSError):
            if self._stop.is_set():
                return
            if os.fstat(self._descriptor).st_nlink == 0:
                lost, self._descriptor = self._descriptor, self._locked_file()
                os.close(lost)
            os.pwrite(self._descriptor, self._beat_text(), 0)

    def close(self) -> None:
        """Stop beating and remove the file; the caller has given back what was leased."""
        self._stop.set()
        with self._closing:
            with contextlib.suppress(OSError):
                os.unlink(self._path)  # noqa: PTH108
            with contextlib.suppress(OSError):
                os.close(self._descriptor)

    def forked(self) -> None:
        """In a child: the lock stayed with the parent, so closing takes nothing from it."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def owner_names(folder: Folder) -> set[str]:
    """The owners that have a file."""
    names = os.listdir(folder.path)  # noqa: PTH208 - four times a second
    return {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)}


class Census:
    """What one observer knows about the owners of a database."""

    def __init__(self, folder: Folder, stalled_seconds: float) -> None:
        self._folder = folder
        self._stalled_seconds = stalled_seconds
        self._seen: dict[str, tuple[bytes, float]] = {}
        self._last = 0.0

    def grave(self, name: str) -> int | None:
        """The locked descriptor of a dead owner's file, so that one observer buries it; else None."""
        try:
            descriptor = os.open(self._folder.file(name + _SUFFIX), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def bury(self, name: str, descriptor: int) -> None:
        """Remove a dead owner's file."""
        with contextlib.suppress(OSError):
            os.unlink(self._folder.file(name + _SUFFIX))  # noqa: PTH108
        os.close(descriptor)
        self._seen.pop(name, None)

    def stalled(self, names: set[str]) -> set[str]:
        """Those of ``names`` whose counter has not moved for the stall limit of our own clock."""
        now = time.monotonic()
        if now - self._last > max(1.0, self._stalled_seconds / 3):
            # We were stopped ourselves: what we remember says nothing about the others.
            self._seen.clear()
        self._last = now
        found = set()
        for name in names:
            try:
                text = Path(self._folder.file(name + _SUFFIX)).read_bytes()
            except OSError:
                continue
            seen = self._seen.get(name)
            if seen is None or seen[0] != text:
                self._seen[name] = (text, now)
            elif now - seen[1] >= self._stalled_seconds:
                found.add(name)
        for name in self._seen.keys() - names:
            del self._seen[name]
        return found
