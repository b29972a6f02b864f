"""A SQLite connection of one process, with the guard that keeps forks out while it is in use."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable

from cfqueue.database import abandon, join_forks


class Handle:
    """Opens on first use, again after a fork, and again after `drop`. Hold ``guard`` around every use.

    No thread holds two guards at once, and none takes another lock while it holds one: a fork takes
    all guards, in any order.
    """

    def __init__(self, opener: Callable[[], sqlite3.Connection]) -> None:
        self.guard = threading.RLock()
        self._opener = opener
        self._connection: sqlite3.Connection | None = None
        join_forks(self)

    def opened(self) -> sqlite3.Connection:
        """The connection; raises sqlite3.Error when it cannot be opened."""
        if self._connection is None:
            self._connection = self._opener()
        return self._connection

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
