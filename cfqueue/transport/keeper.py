"""The thread that watches over a database: dead and stopped owners, missed wake-ups, expired queues."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from cfqueue import clock
from cfqueue.errors import BrokerError
from cfqueue.transport.operations import Op, Reap
from cfqueue.transport.owner import Census, owner_names
from cfqueue.transport.wakeup import Folder

_log = logging.getLogger("cfqueue.transport")
#: Seconds between two looks for queues that nobody has used within their expiry.
_SWEEP_SECONDS = 5.0
#: Longest wait for the write lock when giving back, in seconds; the next look tries again.
_RELEASE_SECONDS = 1.0


class Watched(Protocol):
    """What a Store shows to its keeper."""

    path: str
    folder: Folder

    @property
    def owner_id(self) -> str | None:
        """The id of this process's own owner."""

    def submit(self, ops: Sequence[Op], *, timeout: float | None = None) -> list[Any]:
        """Commit operations."""

    def version(self) -> tuple[int, int]:
        """Another value when the file was changed."""

    def leasing_owners(self) -> set[str]:
        """The ids of owners that lease something."""

    def wake(self) -> None:
        """Wake the listeners of this process."""

    def sweep(self) -> None:
        """Remove queues past their expiry."""


class Keeper:
    """Looks every ``poll_seconds``; runs in every process that has an owner or a listener."""

    def __init__(self, store: Watched, poll_seconds: float, stalled_seconds: float) -> None:
        self._store = store
        self._poll_seconds = poll_seconds
        self._census = Census(store.folder, stalled_seconds)
        self._version: tuple[int, int] | None = None
        self._swept = time.monotonic()
        self._warned = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cfqueue-keeper", daemon=True)
        self._thread.start()

    def hurry(self, poll_seconds: float) -> None:
        """Look at least this often from now on: a listener has no socket that others could reach."""
        self._poll_seconds = min(self._poll_seconds, poll_seconds)

    def stop(self) -> None:
        """End the thread; waits for a look that is under way."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=2 * _RELEASE_SECONDS)

    def _run(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            try:
                self.look()
            except (BrokerError, OSError) as error:
                if self._stop.is_set():
                    return
                if str(error) != self._warned:
                    self._warned = str(error)
                    _log.warning("Watching over %s failed, trying again: %s", self._store.path, error)
            except Exception:
                # A fault of ours must not end the watch for good.
                _log.exception("Watching over %s failed, trying again", self._store.path)
                self._stop.wait(_RELEASE_SECONDS)

    def look(self) -> None:
        """One look: wake listeners if the file changed, give back what the dead and stopped leased."""
        version = self._store.version()
        if version != self._version:
            self._version = version
            self._store.wake()
        self._bury()
        if time.monotonic() - self._swept > _SWEEP_SECONDS:
            self._swept = time.monotonic()
            self._store.sweep()

    def _bury(self) -> None:
        # The leases are read before the files: an owner that came between has a file already.
        holding = self._store.leasing_owners()
        own = self._store.owner_id
        files = owner_names(self._store.folder)
        others = files - {own}
        for name in others:
            descriptor = self._census.grave(name)
            if descriptor is None:
                continue
            try:
                returned = self._reap(name)
            except BaseException:
                os.close(descriptor)
                raise
            self._census.bury(name, descriptor)
            _log.info("Owner %s is gone; %d messages given back.", name, returned)
        for name in holding - files - {own}:
            self._reap(name)
        for name in self._census.stalled(others) & holding:
            returned = self._reap(name)
            _log.warning("Owner %s has stopped; %d messages given to others.", name, returned)

    def _reap(self, name: str) -> int:
        (returned,) = self._store.submit([Reap(name, clock.now_ms())], timeout=_RELEASE_SECONDS)
        return int(returned)
