"""One SQLite file: its address, its connections, its write lock, its errors, and forks.

Every writer to a cfqueue database goes through this module, because each rule here has a reason
that was measured:

* An exclusive ``flock`` on a side file is held around each write transaction. SQLite's own lock has
  no queue, and with six writers three of them starved for seconds.
* ``wal_autocheckpoint`` is 0; checkpoints run under that same lock. SQLite 3.7.0 to 3.51.2 can damage
  a file when a checkpoint and a write coincide.
* No fork happens while a thread is inside SQLite, and a child drops inherited handles without closing
  them. Otherwise children hang, or close the parent's locks.
* The file itself is opened by SQLite only: closing any other descriptor of it would drop the POSIX
  locks of the whole process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from cfqueue.errors import (
    BrokerError,
    BrokerFull,
    BrokerUnavailable,
    ConfigurationError,
    SendUncertain,
    StoreCorrupt,
)

#: How long SQLite itself waits for a foreign lock before the statement is given up, in seconds.
#: Short, because the write lock and the fork guard are held meanwhile; callers try again.
BUSY_SECONDS = 0.05
#: File systems on which neither ``flock`` nor shared memory can be trusted between machines.
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre"}
)


def sqlite_path(url: str) -> str:
    """The absolute path of the file behind ``sqlite:///…`` or ``cfqueue+sqlite:///…``.

    Raises ConfigurationError for anything that is not a file on disk.
    """
    try:
        parsed = make_url(url.removeprefix("cfqueue+"))
    except ArgumentError:
        raise ConfigurationError(
            f"broker_url: {url!r} is not a database URL; write cfqueue+sqlite:////absolute/path.db."
        ) from None
    if parsed.get_backend_name() != "sqlite":
        raise ConfigurationError(
            f"broker_url: the embedded broker keeps its messages in SQLite, not in"
            f" {parsed.get_backend_name()!r}; write cfqueue+sqlite:////absolute/path.db."
        )
    if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
        raise ConfigurationError(
            f"broker_url: {url!r} names no file. Messages must outlive the process:"
            " write cfqueue+sqlite:////absolute/path.db."
        )
    return str(Path(parsed.database).absolute())


def file_system(path: str) -> str:
    """The type of the file system that holds ``path`` ("ext4", "nfs4"); "" where unknown."""
    found, length = "", -1
    target = os.path.realpath(path)
    try:
        with Path("/proc/self/mounts").open(encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                _, place, kind, *_ = line.split(" ")
                place = place.replace("\\040", " ")
                inside = target == place or target.startswith(place.rstrip("/") + "/")
                if inside and len(place) >= length:
                    found, length = kind, len(place)
    except OSError:
        return ""
    return found


def check_place(path: str, *, allow_network: bool = False) -> None:
    """Refuse a folder that cannot hold the database. Raises ConfigurationError or BrokerUnavailable."""
    folder = Path(path).parent
    if not folder.is_dir():
        raise BrokerUnavailable(
            f"{path}: the folder {folder} does not exist. Create it, or name another file."
        )
    if Path(path).is_dir():
        raise BrokerUnavailable(f"{path} is a folder, not a database file. Name a file in it.")
    kind = file_system(str(folder))
    if kind in NETWORK_FILE_SYSTEMS:
        text = (
            f"{path} lies on a network file system ({kind}), where locks do not hold between machines"
            " and messages can be lost. Use a local disk, or RabbitMQ or Redis for several machines."
        )
        if not allow_network:
            raise ConfigurationError(text)
        warnings.warn(text, RuntimeWarning, stacklevel=3)


def is_busy(error: sqlite3.Error) -> bool:
    """True when another program holds the file's lock and trying again may help."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}


def translated(error: sqlite3.Error | OSError, path: str, *, committing: bool = False) -> Exception:
    """The cfqueue error for what SQLite or the system said, with a text that a user can act on."""
    code = getattr(error, "sqlite_errorcode", 0)
    primary = code & 0xFF
    number = error.errno if isinstance(error, OSError) else None
    said = f" (SQLite: {error})" if isinstance(error, sqlite3.Error) else f" ({error})"
    found: Exception
    if (
        primary == sqlite3.SQLITE_FULL
        or number in {errno.ENOSPC, errno.EDQUOT}
        or (code == sqlite3.SQLITE_IOERR_SHMSIZE and _free_bytes(path) < 1 << 20)
    ):
        found = BrokerFull(f"{path}: the disk is full; nothing was stored. Free some space.{said}")
    elif primary in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        found = StoreCorrupt(
            f"{path} is damaged or is not a SQLite database; nothing was stored. Move it away and"
            f" recover what it holds with `sqlite3 {path} .recover`, or name another file.{said}"
        )
    elif primary == sqlite3.SQLITE_READONLY or number == errno.EROFS:
        found = BrokerUnavailable(
            f"{path} or its folder is read-only; nothing was stored. The user of this process needs to"
            f" write the file and to create files beside it.{said}"
        )
    elif primary == sqlite3.SQLITE_CANTOPEN or number in {errno.EACCES, errno.EPERM, errno.ENOENT}:
        found = BrokerUnavailable(
            f"{path} cannot be opened; nothing was stored. Check that its folder exists and that the user"
            f" of this process may write there.{said}"
        )
    elif isinstance(error, sqlite3.Error) and is_busy(error):
        found = BrokerUnavailable(
            f"{path} is locked by another program that has a transaction open; nothing was stored."
            f" End it (a database browser, a script) and try again.{said}"
        )
    elif primary == sqlite3.SQLITE_IOERR and committing:
        found = SendUncertain(
            f"{path}: the disk reported an error while a transaction was written; whether it was stored is"
            f" unknown.{said}"
        )
    elif isinstance(error, (sqlite3.OperationalError, sqlite3.DatabaseError, OSError)):
        found = BrokerUnavailable(f"{path} could not be used; nothing was stored.{said}")
    else:
        found = BrokerError(f"{path}: {error}")
    return found


def _free_bytes(path: str) -> int:
    try:
        state = os.statvfs(Path(path).parent)
    except OSError:
        return 1 << 62
    return state.f_bavail * state.f_frsize


class Forkable(Protocol):
    """What takes part in a fork: its guard is held during it, its child side starts afresh."""

    guard: threading.RLock

    def forked(self) -> None:
        """In the child: drop handles without closing them; close descriptors of locks."""


_forkables: weakref.WeakSet[Forkable] = weakref.WeakSet()
_registry = threading.RLock()
_held: list[Forkable] = []
#: Connections inherited from a parent: referenced for ever, so that nothing closes them.
_abandoned: list[object] = []


def join_forks(member: Forkable) -> None:
    """Have ``member.guard`` taken before each fork and ``member.forked()`` called in each child."""
    with _registry:
        _forkables.add(member)


def abandon(handle: object) -> None:
    """Keep a handle that a child inherited, so that it is never closed there."""
    if handle is not None:
        _abandoned.append(handle)


def _before_fork() -> None:
    _registry.acquire()
    for member in sorted(_forkables, key=id):
        member.guard.acquire()
        _held.append(member)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().guard.release()
    _registry.release()


def _after_fork_in_child() -> None:
    global _registry  # noqa: PLW0603 - the inherited lock belongs to a thread that is not here
    members = list(_held)
    _held.clear()
    _registry = threading.RLock()
    for member in members:
        member.guard = threading.RLock()
        member.forked()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)


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
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                yield self._had(self._descriptor, deadline)
            finally:
                # Unlocking what is not locked does no harm, unless the waiter is about to have it.
                if self._waiter is None or not self._waiter.pending:
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        finally:
            turn.release()

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
        self.close()


def connected(path: str, *, reading: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode with the settings every cfqueue connection has.

    Raises sqlite3.Error; callers translate it. ``reading`` forbids writes on this connection.
    """
    connection = sqlite3.connect(
        path,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("PRAGMA temp_store=MEMORY")
        if reading:
            connection.execute("PRAGMA query_only=1")
    except BaseException:
        connection.close()
        raise
    return connection
