"""One SQLite file: its address, its connections, its errors, and forks.

Every writer to a cfqueue database goes through this module, because each rule here has a reason
that was measured:

* An exclusive ``flock`` on a side file is held around each write transaction (`transport.write_lock`).
  SQLite's own lock has no queue, and with six writers three of them starved for seconds.
* ``wal_autocheckpoint`` is 0; checkpoints run under that same lock. SQLite 3.7.0 to 3.51.2 can damage
  a file when a checkpoint and a write coincide.
* No fork happens while a thread is inside SQLite, and no connection is open during one: parent and
  child open anew on next use. Otherwise children hang, or close the parent's locks; and SQLite's own
  table of open files, which a child inherits, names descriptors that whoever closes "all inherited
  files" (Celery's embedded Beat, daemons) takes away. Each lock is then waited for in vain.
* The file itself is opened by SQLite only: closing any other descriptor of it would drop the POSIX
  locks of the whole process.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sqlite3
import threading
import warnings
import weakref
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

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
#: A log below this many bytes outlives the close before a fork: who opens the file next reads it through
#: (1 ms per 2 MB, measured), which costs less than writing it into the file (2 ms for one commit, 14 ms
#: for 4 MB) at each fork. A larger one is left to SQLite, so that it cannot grow from fork to fork.
KEPT_LOG_BYTES = 4_000_000
#: File systems on which neither ``flock`` nor shared memory can be trusted between machines.
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre"}
)


def sqlite_path(url: str) -> str:
    """The absolute path of the file behind ``sqlite:///…`` or ``cfqueue+sqlite:///…``, percent-decoded.

    Raises ConfigurationError for anything that is not a file on disk.
    """
    address = url.removeprefix("cfqueue+")
    try:
        parsed = make_url(address)
    except ArgumentError:
        raise ConfigurationError(
            f"broker_url: {url!r} is not a database URL; write cfqueue+sqlite:////absolute/path.db."
        ) from None
    if parsed.get_backend_name() != "sqlite":
        raise ConfigurationError(
            f"broker_url: the embedded broker keeps its messages in SQLite, not in"
            f" {parsed.get_backend_name()!r}; write cfqueue+sqlite:////absolute/path.db."
        )
    # Decoded here, because SQLAlchemy does so only since 2.1.
    name = unquote(address.partition("://")[2].partition("?")[0].partition("/")[2])
    if not name or name == ":memory:" or name.startswith("file:"):
        raise ConfigurationError(
            f"broker_url: {url!r} names no file. Messages must outlive the process:"
            " write cfqueue+sqlite:////absolute/path.db."
        )
    if name.startswith("//"):
        name = "/" + name.lstrip("/")  # to SQLite's URIs, //tmp/q.db is a host called tmp
    return str(Path(name).absolute())


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
    elif primary == sqlite3.SQLITE_PROTOCOL:
        found = BrokerUnavailable(
            f"{path}: SQLite tried for ten seconds to have its locks; nothing was stored. File descriptors of"
            f" this process were closed while the file was open (daemons do so), or a process that holds the"
            f" file was stopped. Restart this process.{said}"
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
    """What takes part in a fork: closed before it, its guard held during it, opened anew on both sides."""

    guard: threading.RLock
    #: Whether it writes; those close last.
    writing: bool

    def before_fork(self) -> None:
        """Close what a child must not inherit; all guards are held."""

    def forked(self) -> None:
        """In the child: drop, without closing it, what could not be closed before."""


_forkables: weakref.WeakSet[Forkable] = weakref.WeakSet()
_registry = threading.RLock()
_held: list[Forkable] = []


def join_forks(member: Forkable) -> None:
    """Have ``member`` closed, and its guard held, for each fork; ``member.forked()`` runs in each child."""
    with _registry:
        _forkables.add(member)


def abandon(handle: object) -> None:
    """See to it that a handle which a child inherited is never closed there, not even at its exit."""
    if handle is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle))


def _before_fork() -> None:
    _registry.acquire()
    idle: list[Forkable] = []
    for member in sorted(_forkables, key=id):
        # A signal handler that forks in the middle of a statement must not have it closed underneath.
        if not member.guard._is_owned():  # type: ignore[attr-defined]
            idle.append(member)
        member.guard.acquire()
        _held.append(member)
    for member in sorted(idle, key=lambda member: member.writing):
        with contextlib.suppress(sqlite3.Error, OSError):
            member.before_fork()


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().guard.release()
    _registry.release()


def _after_fork_in_child() -> None:
    global _registry  # noqa: PLW0603 - the inherited lock belongs to a thread that is not here
    # A server written in C may fork without telling Python before; it does so after.
    members = list(_held) or list(_forkables)
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


def connected(path: str, *, reading: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode with the settings every cfqueue connection has.

    Raises sqlite3.Error; callers translate it. ``reading`` forbids writes on this connection, and has
    SQLite leave the log alone when it is the last one to close.
    """
    address = f"file:{quote(path)}?mode={'ro' if reading else 'rwc'}"
    connection = sqlite3.connect(
        address,
        uri=True,
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


def probe(connection: sqlite3.Connection) -> None:
    """Read a little, so that the file's locks, its log and its header are looked at. Raises sqlite3.Error."""
    connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()


def close_for_fork(connection: sqlite3.Connection, path: str) -> None:
    """Close a writing connection, though it will be wanted again at once.

    The last connection that closes writes the log into the file, with several fsyncs, and removes it;
    unless it can only read. So a reading one closes last.
    """
    last: sqlite3.Connection | None = None
    with contextlib.suppress(sqlite3.Error, OSError):
        if os.stat(f"{path}-wal").st_size < KEPT_LOG_BYTES:  # noqa: PTH116 - at every fork; it must be quick
            last = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=BUSY_SECONDS)
            last.execute("PRAGMA schema_version").fetchone()
    try:
        connection.close()
    finally:
        if last is not None:
            last.close()
