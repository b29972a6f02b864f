"""The Store: everything that is done to one database file goes through the one Store of its process.

    store = Store.at("/var/lib/app/queue.db")
    store.submit([Put([row])])                                   # durable when it returns
    me = store.owner().id
    (messages,) = store.submit([Claim(me, "jobs", 100)])
    store.submit([Ack([message.lease for message in messages])])

Safe in threads (they share commits) and in forked children (they open the file anew on first use).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from cfqueue import clock, database
from cfqueue.errors import BrokerError, ConfigurationError
from cfqueue.limits import BEAT_SECONDS, STALLED_OWNER_SECONDS
from cfqueue.transport import schema
from cfqueue.transport import statements as sql
from cfqueue.transport.connection import Handle
from cfqueue.transport.keeper import Keeper
from cfqueue.transport.operations import Backlog, Leased, Op, Reap
from cfqueue.transport.owner import Owner, owner_names
from cfqueue.transport.routes import Routes
from cfqueue.transport.transaction import ANY_QUEUE, leased, ready, result
from cfqueue.transport.wakeup import Bell, Folder, Listener
from cfqueue.transport.write_lock import WriteLock
from cfqueue.transport.writer import Writer

#: Seconds that a submit without a timeout of its own waits for the write lock.
LOCK_SECONDS = 30.0
#: Seconds between two looks of the keeper; a dead owner's messages are back within two of them.
POLL_SECONDS = 0.25
#: The same for a listener that no other process can reach, since its socket path is too long.
SOCKETLESS_POLL_SECONDS = 0.015
#: Seconds that leaving a process may wait for the write lock; then the reaper of others does the rest.
_LEAVE_SECONDS = 2.0
#: Seconds that a read is tried again while another process opens or closes the file.
_READ_SECONDS = 2.0
_T = TypeVar("_T")

_stores: dict[str, Store] = {}
_stores_lock = threading.Lock()


class Store:
    """One database file in one process; use `Store.at`."""

    @classmethod
    def at(cls, path: str, **options: Any) -> Store:
        """The store of ``path``; the same object for the same file. It stays open until `close`.

        Options (of the first call): ``lock_seconds``, ``beat_seconds``, ``stalled_seconds``,
        ``poll_seconds``, ``allow_network_file_system``. Creates the file, its tables and ``<path>.d/``.
        Raises BrokerUnavailable, BrokerFull, StoreCorrupt or ConfigurationError.
        """
        if (known := _stores.get(path)) is not None:
            return known
        real = os.path.realpath(path)
        with _stores_lock:
            store = _stores.get(real)
            if store is None:
                store = cls(real, **(_patience() | options))
                store.open()
                _stores[real] = store
        return store

    def __init__(
        self,
        path: str,
        *,
        lock_seconds: float = LOCK_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
        stalled_seconds: float = STALLED_OWNER_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        allow_network_file_system: bool = False,
    ) -> None:
        self.path = path
        self.folder = Folder(path)
        self.lock_seconds = lock_seconds
        self._beat_seconds = beat_seconds
        self._stalled_seconds = stalled_seconds
        self._poll_seconds = poll_seconds
        self._allow_network = allow_network_file_system
        self._write = Handle(path, writing=True, prepare=lambda connection: schema.prepare(connection, path))
        self._read = Handle(path)
        self._lock = WriteLock(self.folder.file("write.lock"))
        self.routes = Routes(self)
        self._fresh()

    def _fresh(self) -> None:
        """What a process starts with, be it a forked one."""
        self._state = threading.RLock()
        self._pid = os.getpid()
        self._writer = Writer(self.path, self._write, self._lock)
        self._bell = Bell(self.folder)
        self._owner: Owner | None = None
        self._keeper: Keeper | None = None
        self._listeners: list[Listener] = []
        self._leaving: list[Callable[[], None]] = []

    def open(self) -> None:
        """Make sure that file, tables and folder are there and can be written."""
        database.check_place(self.path, allow_network=self._allow_network)
        try:
            self.folder.make()
            self._writer.exclusively(_touch, time.monotonic() + self.lock_seconds)
        except (sqlite3.Error, OSError) as error:
            self._let_go()
            raise database.translated(error, self.path) from error
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        self._read.close()
        self._write.close()
        self._lock.close()
        self.folder.close()

    # Writing

    def submit(self, ops: Sequence[Op], *, timeout: float | None = None) -> list[Any]:
        """Do ``ops`` in one transaction, together with what other threads wait to do; one result each.

        ``timeout``: seconds to wait for the write lock (default: ``lock_seconds``). Raises
        BrokerUnavailable, BrokerFull, StoreCorrupt: nothing was stored. SendUncertain: unknown.
        """
        group = [ready(op) for op in ops]
        if not group:
            return []
        wait = self.lock_seconds if timeout is None else timeout
        self._writer.submit(group, time.monotonic() + wait)
        wakes = {name for item in group for name in item.wakes}
        if wakes:
            self._bell.ring(wakes)
        return [result(item, self._reread) for item in group]

    def purge(self, queue: str) -> int:
        """Remove the waiting messages of a queue, delayed ones too; leased ones stay. Returns how many."""
        return int(self.write(lambda connection: connection.execute(sql.PURGE, {"queue": queue}).rowcount))

    def declare(self, queue: str) -> None:
        """Make a queue known to `queues`; sending to an undeclared one works as well."""
        self.routes.declare_queue(queue)

    def write(self, action: Callable[[sqlite3.Connection], Any], *, timeout: float | None = None) -> Any:
        """Run ``action(connection)`` alone under the write lock; for statements that are rare."""
        wait = self.lock_seconds if timeout is None else timeout
        try:
            return self._writer.exclusively(action, time.monotonic() + wait)
        except OSError as error:
            raise database.translated(error, self.path) from error

    def sweep(self) -> None:
        """Remove queues that nobody used within their expiry (reply queues of remote control)."""
        self.routes.sweep(owner_names(self.folder))

    # Reading

    def read_one(self, statement: str, values: Any = ()) -> Any:
        """The first row of a read, or None."""
        rows = self.read_all(statement, values)
        return rows[0] if rows else None

    def read_all(self, statement: str, values: Any = ()) -> list[Any]:
        """All rows of a read on a connection of its own, which waits for no writer."""
        return self._reading(lambda connection: connection.execute(statement, values).fetchall())

    def version(self) -> tuple[int, int]:
        """Another value when another connection has changed the file; for the keeper."""
        return self._reading(
            lambda connection: (
                self._read.openings,
                int(connection.execute("PRAGMA data_version").fetchone()[0]),
            )
        )

    def _reading(self, action: Callable[[sqlite3.Connection], _T]) -> _T:
        patience = time.monotonic() + _READ_SECONDS
        while True:
            try:
                with self._read.guard:
                    return action(self._read.opened())
            except sqlite3.Error as error:
                # Whoever opens the file first, or closes it last, keeps others out for a moment.
                if not database.is_busy(error) or time.monotonic() >= patience:
                    raise database.translated(error, self.path) from error
            time.sleep(0.002)

    def _reread(self, ids: str) -> str | None:
        row = self.read_one(sql.REREAD, (ids,))
        return None if row is None else row[0]

    def backlog(self, queue: str) -> Backlog:
        """How full a queue is: waiting messages and bytes, and what is delayed, leased or suspected."""
        values = {"queue": queue, "now": clock.now_ms()}
        count, size, oldest, delayed, suspects = self.read_one(sql.BACKLOG, values)
        return Backlog(
            count=count,
            bytes=size,
            oldest_ms=oldest,
            delayed=delayed,
            in_flight=self.read_one(sql.IN_FLIGHT, {"queue": queue})[0],
            suspects=suspects,
        )

    def length(self, queue: str) -> int:
        """How many messages wait in a queue, delayed ones too, leased ones not."""
        return int(self.read_one(sql.LENGTH, {"queue": queue})[0])

    def peek(self, queue: str, limit: int) -> list[Leased]:
        """The messages that wait in a queue, without leasing them: tokens of these settle nothing."""
        _, ids, rows = self.read_one(sql.PEEK, {"queue": queue, "limit": limit})
        found = leased(ids, rows, self._reread) if rows else []
        for message in found:
            message.token = -1
        return found

    def next_due(self, queues: Iterable[str], now_ms: int) -> int | None:
        """When the next delayed message of ``queues`` comes due: the earliest time after ``now_ms``."""
        values = {"queues": json.dumps(list(queues)), "now": now_ms}
        found = self.read_one(sql.NEXT_DUE, values)[0]
        return None if found is None else int(found)

    def is_waiting(self, queue: str, now_ms: int) -> bool:
        """Whether a claim would get anything right now."""
        return bool(self.read_one(sql.WAITING, {"queue": queue, "now": now_ms})[0])

    def queues(self) -> list[str]:
        """The names of declared queues."""
        return self.routes.queues()

    def leasing_owners(self) -> set[str]:
        """The ids of owners that lease something."""
        return set(json.loads(self.read_one(sql.OWNERS)[0]))

    # Living together

    def owner(self) -> Owner:
        """This process as a holder of leases; made on first call, given up at exit."""
        with self._state:
            if self._owner is None:
                try:
                    self._owner = Owner(self.folder, self._beat_seconds)
                except OSError as error:
                    raise database.translated(error, self.path) from error
                self._keep()
            return self._owner

    @property
    def owner_id(self) -> str | None:
        """The id of this process's owner, if it has one."""
        owner = self._owner
        return None if owner is None else owner.id

    def listen(self) -> Listener:
        """A new listener for wake-ups; close it when done."""
        with self._state:
            self._listeners = [listener for listener in self._listeners if not listener.closed]
            listener = Listener(self.folder)
            self._listeners.append(listener)
            self._keep()
            if not listener.reachable and self._keeper is not None:
                self._keeper.hurry(SOCKETLESS_POLL_SECONDS)
            return listener

    def _keep(self) -> None:
        if self._keeper is None:
            self._keeper = Keeper(self, self._poll_seconds, self._stalled_seconds)

    def wake(self) -> None:
        """Wake the listeners of this process."""
        for listener in self._listeners:
            if not listener.closed:
                listener.ring()

    def ring(self, queues: Iterable[str] = (ANY_QUEUE,)) -> None:
        """Wake the listeners of all processes."""
        self._bell.ring(set(queues))

    def before_leaving(self, action: Callable[[], None]) -> None:
        """Have ``action()`` called when the store closes, before its leases are given back."""
        with self._state:
            self._leaving.append(action)

    def forked(self) -> None:
        """In a child: everything that belongs to the parent is let go, nothing is undone."""
        if self._owner is not None:
            self._owner.forked()
        for listener in self._listeners:
            listener.close(unlink=False)
        self._lock.forked()
        self.folder.close()
        self._bell.close()
        self._fresh()

    def close(self) -> None:
        """Give back all leases of this process and let go of the file. Safe to call twice."""
        with _stores_lock:
            if _stores.get(self.path) is self:
                del _stores[self.path]
        leaving, self._leaving = self._leaving, []
        for action in leaving:
            action()
        with self._state:
            keeper, self._keeper = self._keeper, None
            owner, self._owner = self._owner, None
            listeners, self._listeners = self._listeners, []
        if keeper is not None:
            keeper.stop()
        for listener in listeners:
            listener.close()
        if owner is not None:
            with contextlib.suppress(BrokerError):
                self.submit([Reap(owner.id, clock.now_ms(), clean=True)], timeout=_LEAVE_SECONDS)
            owner.close()
        self._bell.close()
        self._read.close()
        # The last connection of all checkpoints and removes the log: under the write lock, like any other.
        with contextlib.suppress(BrokerError, sqlite3.Error, OSError):
            with self._lock.held(time.monotonic() + _LEAVE_SECONDS) as locked:
                if locked:
                    self._write.close()
        self._lock.close()
        self.folder.close()


def _patience() -> dict[str, float]:
    """``CFQUEUE_STALLED_OWNER_SECONDS``: after how long a stopped process counts as gone (default 30 s).

    Every process that uses the file must be given the same; the beat follows at a sixth of it.
    Raises ConfigurationError for anything but a number from 1.
    """
    text = os.environ.get("CFQUEUE_STALLED_OWNER_SECONDS")
    if not text:
        return {}
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 86_400:
        raise ConfigurationError(
            f"CFQUEUE_STALLED_OWNER_SECONDS is {text!r}; it must be a number of seconds from 1 to 86400."
        )
    return {"stalled_seconds": seconds, "beat_seconds": min(BEAT_SECONDS, seconds / 6)}


def _touch(connection: sqlite3.Connection) -> None:
    """Find out now, not at the first message, that the file cannot be written."""
    connection.execute(sql.BEGIN)
    connection.execute(sql.COMMIT)


def _leave() -> None:
    for store in list(_stores.values()):
        with contextlib.suppress(Exception):
            store.close()


def _forked() -> None:
    global _stores_lock  # noqa: PLW0603 - the inherited lock may belong to a thread that is not here
    _stores_lock = threading.Lock()
    for store in _stores.values():
        store.forked()


atexit.register(_leave)
os.register_at_fork(after_in_child=_forked)
