"""A SQLite connection of one process, with the guard that keeps forks out while it is in use."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Protocol

from cfqueue.database import abandon, join_forks


class Handle:
    """Opens on first use, again after a fork, and again when the file was replaced. Hold ``guard`` around every use.

    No thread holds two guards at once, and none takes another lock while it holds one: a fork takes
    all guards, in any order.
    """

    def __init__(self, path: str, opener: Callable[[], sqlite3.Connection]) -> None:
        self.guard = threading.RLock()
        self._path = path
        self._identity: tuple[int, int] | None = None
        self._opener = opener
        self._connection: sqlite3.Connection | None = None
        join_forks(self)

    def opened(self) -> sqlite3.Connection:
        """The connection; raises sqlite3.Error when it cannot be opened."""
        if self._connection is not None and self._identity != self._file():
            # The file was removed or replaced. What is written to one without a name is lost.
            self._connection.close()
            self._connection = None
        if self._connection is None:
            self._connection = self._opener()
            self._identity = self._file()
        return self._connection

    def _file(self) -> tuple[int, int] | None:
        try:
            state = os.stat(self._path)  # noqa: PTH116 - before every use; it must be quick
        except OSError:
            return None
        return state.st_dev, state.st_ino

    def forked(self) -> None:
        """In a child: the connection is the parent's. Closing it would drop the parent's locks."""
        abandon(self._connection)
        self._connection = None

    def close(self) -> None:
        """Close in the process that opened it."""
        with self.guard:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


class Access(Protocol):
    """Reads and rare writes on a database, as a Store offers them."""

    def read_one(self, statement: str, values: Any = ()) -> Any:
        """The first row of a read, or None."""

    def read_all(self, statement: str, values: Any = ()) -> list[Any]:
        """All rows of a read."""

    def write(self, action: Callable[[sqlite3.Connection], Any], *, timeout: float | None = None) -> Any:
        """Run ``action(connection)`` alone under the write lock."""
