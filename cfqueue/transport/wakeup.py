"""Wake-ups between processes: a datagram socket per listener in the folder beside the database.

A bell rings after every commit that made rows available. Nothing depends on a wake-up arriving: the
keeper looks at the file's change counter four times a second behind it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from pathlib import Path

from cfqueue.transport.transaction import ANY_QUEUE

#: Longest socket path that every system takes (Linux: 108 bytes with the closing zero).
MAX_SOCKET_PATH = 100
#: A listing younger than this may miss a file made within the same tick of the file system's clock.
_FRESH_SECONDS = 0.05
#: Linux keeps ten datagrams for a socket that nobody reads (net.unix.max_dgram_qlen).
_MOST_PENDING = 10
#: A way to a file that is short, however long the path of its folder is (Linux).
_DESCRIPTORS = "/proc/self/fd"
_SUFFIX = ".sock"


class Folder:
    """The folder ``<database>.d/``: write lock, owner files and sockets."""

    def __init__(self, database: str) -> None:
        self.path = database + ".d"
        self._descriptor = -1

    def make(self) -> None:
        """Create the folder; raises OSError."""
        Path(self.path).mkdir(exist_ok=True)

    def file(self, name: str) -> str:
        """The path of a file in the folder."""
        return f"{self.path}/{name}"

    def socket_path(self, name: str) -> str | None:
        """An address for a socket in the folder; None when the path is too long for this system."""
        path = self.file(name)
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
            return path
        if not Path(_DESCRIPTORS).is_dir():
            return None
        if self._descriptor < 0:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"{_DESCRIPTORS}/{self._descriptor}/{name}"

    def close(self) -> None:
        """Close what the folder keeps open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Listener:
    """Readable when rows may have become available; wait on `fileno`, then `drain`."""

    def __init__(self, folder: Folder) -> None:
        name = f"{os.getpid()}-{secrets.token_hex(6)}{_SUFFIX}"
        self._path: str | None = folder.file(name)
        address = folder.socket_path(name)
        self._ring, self._socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.reachable = False
        if address is not None:
            own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                own.bind(address)
            except OSError:
                own.close()
            else:
                self._socket.close()
                self._socket = own
                self._ring.close()
                self._ring = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._ring.connect(address)
                self.reachable = True
        if not self.reachable:
            self._path = None
        self._socket.setblocking(False)
        self._ring.setblocking(False)
        self.closed = False

    def fileno(self) -> int:
        """The descriptor to wait on; -1 once closed."""
        return self._socket.fileno()

    def drain(self) -> set[str]:
        """Take all wake-ups; the names of queues that changed, "*" for "any"."""
        names: set[str] = set()
        count = 0
        with contextlib.suppress(OSError):
            while count < _MOST_PENDING * 10:
                names.update(self._socket.recv(4096).decode("utf-8", "replace").split("\n"))
                count += 1
        if count >= _MOST_PENDING:
            # The socket may have been full, and wake-ups for other queues turned away.
            names.add(ANY_QUEUE)
        return names

    def ring(self) -> None:
        """Wake this listener from inside the process, whatever thread it is."""
        with contextlib.suppress(OSError):
            self._ring.send(ANY_QUEUE.encode())

    def close(self, *, unlink: bool = True) -> None:
        """End listening. A forked child does not unlink: the socket is its parent's."""
        if self.closed:
            return
        self.closed = True
        self._socket.close()
        self._ring.close()
        if unlink and self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)  # noqa: PTH108 - runs at exit; no Path machinery


class Bell:
    """Wakes every listener of a database, in all processes."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._socket: socket.socket | None = None
        self._names: list[str] = []
        self._changed_ns = -1

    def ring(self, queues: set[str]) -> None:
        """Tell all listeners that ``queues`` changed; never raises, never blocks."""
        try:
            names = self._listeners()
            if not names:
                return
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            text = "\n".join(queues).encode("utf-8", "replace")
            if len(text) > 4096:
                text = ANY_QUEUE.encode()
            for name in names:
                self._send(text, name)
        except OSError:
            pass

    def _send(self, text: bytes, name: str) -> None:
        address = self._folder.socket_path(name)
        if address is None or self._socket is None:
            return
        try:
            self._socket.sendto(text, address)
        except (ConnectionRefusedError, FileNotFoundError):
            # Its process is gone; socket names are never used twice.
            self._changed_ns = -1
            with contextlib.suppress(OSError):
                os.unlink(self._folder.file(name))  # noqa: PTH108
        except OSError:
            # Its buffer is full, so it has wake-ups to read; or it belongs to another user.
            pass

    def _listeners(self) -> list[str]:
        changed = os.stat(self._folder.path).st_mtime_ns  # noqa: PTH116 - on the path of every send
        if changed != self._changed_ns:
            names = [name for name in os.listdir(self._folder.path) if name.endswith(_SUFFIX)]  # noqa: PTH208
            settled = time.time_ns() - changed > _FRESH_SECONDS * 1e9
            self._changed_ns = changed if settled else -1
            self._names = names
        return self._names

    def close(self) -> None:
        """Close the sending socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
