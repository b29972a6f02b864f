"""A SQLite connection of one process, with the guard that keeps forks out while it is in use."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Protocol

from cfqueue import database


class Handle:
    """Opens on first use, again after a fork, and again when the file was replaced. Hold ``guard`` around every use.

    No thread holds two guards at once, and none takes another lock while it holds one: a fork takes
    all guards, in any order. No cursor outlives the guard: SQLite keeps a file open for its sake, and a
    child would inherit it. ``prepare(connection)`` runs once for each connection, before its first use.
    """

    def __init__(
        self,
        path: str,
        *,
        writing: bool = False,
        prepare: Callable[[sqlite3.Connection], None] = database.probe,
    ) -> None:
        self.guard = threading.RLock()
        self.writing = writing
        #: How many connections there were; what SQLite says of one holds for no other.
        self.openings = 0
        self._path = path
        self._prepare = prepare
        self._prepared = False
        self._identity: tuple[int, int] | None = None
        self._connection: sqlite3.Connection | None = None
        database.join_forks(self)

    @property
    def is_open(self) -> bool:
        """Whether there is a connection right now."""
        return self._connection is not None

    def opened(self) -> sqlite3.Connection:
        """The connection; raises sqlite3.Error when it cannot be opened."""
        connection = self._connected()
        if not self._prepared:
            self._prepare(connection)
            self._prepared = True
        return connection

    def probe(self) -> None:
        """Find out, before the write lock is held, whether the file can be read. Raises sqlite3.Error."""
        with self.guard:
            database.probe(self._connected())

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._identity != self._file():
            # The file was removed or replaced. What is written to one without a name is lost.
            self._connection.close()
            self._connection = None
        if self._connection is None:
            self._connection = database.connected(self._path, reading=not self.writing)
            self._prepared = False
            self._identity = self._file()
            self.openings += 1
        return self._connection

    def _file(self) -> tuple[int, int] | None:
        try:
            state = os.stat(self._path)  # noqa: PTH116 - before every use; it must be quick
        except OSError:
            return None
        return state.st_dev, state.st_ino

    def before_fork(self) -> None:
        """Close, so that a child inherits nothing; both sides open anew when they need it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self.writing:
            database.close_for_fork(connection, self._path)
        else:
            connection.close()

    def forked(self) -> None:
        """In a child: a connection that is still here is the parent's; to close it would drop its locks."""
        database.abandon(self._connection)
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
