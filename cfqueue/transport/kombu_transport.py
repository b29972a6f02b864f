"""``cfqueue+sqlite:////path.db`` for kombu and Celery.

Asynchronous: Celery's loop waits on one descriptor, a thread (`engine`) claims and settles behind it.
The driver type is our own, so that mingle and gossip, which need more than this broker, stay off.
"""

# ruff: noqa: ARG002 - the signatures are kombu's
from __future__ import annotations

import os
import select
import socket
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from kombu.transport import virtual

from cfqueue.database import sqlite_path
from cfqueue.errors import BrokerFull, BrokerUnavailable
from cfqueue.transport.channel import Channel as StoreChannel
from cfqueue.transport.engine import Engine, Signal
from cfqueue.transport.operations import Leased, Op, Release
from cfqueue.transport.store import Store

#: Seconds of delivering per pass of Celery's loop. On the solo pool each delivery runs a task, and
#: acks go out between passes only.
_SLICE_SECONDS = 0.001
#: What ``broker_transport_options`` may set; see `Store.at`.
_STORE_OPTIONS = (
    "lock_seconds",
    "beat_seconds",
    "stalled_seconds",
    "poll_seconds",
    "allow_network_file_system",
)


# kombu is half typed: its classes are untyped here on purpose.
_Base: Any = virtual.Transport


class Transport(_Base):  # type: ignore[misc]
    """kombu's view of one database file; one per kombu Connection."""

    Channel = StoreChannel
    driver_type = "cfqueue"
    driver_name = "sqlite"
    can_parse_url = True
    default_port = None
    polling_interval = None
    # A refused publish stored nothing, so kombu may try it again.
    connection_errors = (*_Base.connection_errors, BrokerUnavailable, BrokerFull)
    implements = _Base.implements.extend(
        asynchronous=True,
        exchange_type=frozenset(["direct", "topic", "fanout"]),
        heartbeats=False,
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        options = client.transport_options or {}
        chosen = {name: options[name] for name in _STORE_OPTIONS if name in options}
        self._path = sqlite_path(_address(client))
        self.store = Store.at(self._path, **chosen)
        self.inbox: deque[tuple[StoreChannel, str, Leased]] = deque()
        self._engine: Engine | None = None
        self._signal: Signal | None = None
        self._deliverers: dict[tuple[StoreChannel, str], Callable[[Leased], Any]] = {}
        self._expiring: set[str] = set()
        self._loop: Any = None
        self._pid = os.getpid()

    def driver_version(self) -> str:
        """The version of the SQLite library."""
        return sqlite3.sqlite_version

    def verify_connection(self, connection: Any) -> bool:
        """Whether the connection can still be used here."""
        return self._pid == os.getpid()

    @property
    def default_connection_params(self) -> dict[str, Any]:
        """Nothing to add to what the URL says."""
        return {}

    # Consuming

    def _started(self) -> Engine:
        if self._engine is None or self._engine.stopped:
            self._engine = Engine.of(self.store)
        if self._signal is None:
            self._signal = Signal()
        return self._engine

    def consumes(self, channel: StoreChannel, queue: str, deliver: Callable[[Leased], Any]) -> None:
        """A channel has a new consumer."""
        self._deliverers[channel, queue] = deliver
        engine = self._started()
        engine.join(channel)
        engine.wake(queue)

    def cancelled(self, channel: StoreChannel, queue: str) -> None:
        """A consumer has gone: what it did not get goes back, and its queue if it was a passing one."""
        self._deliverers.pop((channel, queue), None)
        self._give_back(lambda owner, name: owner is channel and name == queue)
        if queue not in self._expiring:
            self.store.routes.delete_if_deserted(queue)

    def leaves(self, channel: StoreChannel) -> None:
        """A channel closes."""
        if self._engine is not None:
            self._engine.leave(channel)
        self._give_back(lambda owner, _: owner is channel)

    def _give_back(self, concerns: Callable[[StoreChannel, str], bool]) -> None:
        kept: list[tuple[StoreChannel, str, Leased]] = []
        returned = []
        while self.inbox:
            entry = self.inbox.popleft()
            if concerns(entry[0], entry[1]):
                entry[0].taken()
                returned.append(entry[2].lease)
            else:
                kept.append(entry)
        self.inbox.extend(kept)
        if returned:
            self.store.submit([Release(returned)])

    def signal(self) -> None:
        """The inbox has something (called on the engine's thread)."""
        if self._signal is not None:
            self._signal.set()

    def look_again(self) -> None:
        """The appetite of a channel has changed."""
        if self._engine is not None and self._pid == os.getpid():
            self._engine.wake()

    def settle(self, op: Op) -> None:
        """Commit a settle: soon, by the engine; now, when nothing is consumed here."""
        if self._engine is not None and not self._engine.stopped:
            self._engine.settle(op)
        else:
            self.store.submit([op])

    def declare_expiring(self, queue: str, arguments: dict[str, Any], expires_ms: int) -> None:
        """A queue that goes with this process: replies to and commands of remote control."""
        if queue in self._expiring and self.store.routes.has_queue(queue):
            return
        self.store.routes.declare_expiring(queue, self.store.owner().id, arguments, expires_ms)
        self._expiring.add(queue)

    def _next(self) -> bool:
        """Deliver one message of the inbox; False when it is empty."""
        try:
            channel, queue, leased = self.inbox.popleft()
        except IndexError:
            return False
        deliver = self._deliverers.get((channel, queue))
        if deliver is None:
            channel.taken()
            self.settle(Release([leased.lease]))
            return True
        try:
            deliver(leased)
        finally:
            channel.taken()
        return True

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Deliver one message; raises socket.timeout when none comes within ``timeout`` seconds."""
        self._started()
        signal = self._signal
        assert signal is not None
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._next():
            signal.clear()
            if self.inbox:
                continue
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError("timed out")
            poll = select.poll()
            poll.register(signal.fileno(), select.POLLIN)
            poll.poll(None if left is None else left * 1000)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Have Celery's loop watch the inbox."""
        self._started()
        assert self._signal is not None
        self._loop = loop
        loop.add_reader(self._signal.fileno(), self.on_readable, loop)

    def on_readable(self, loop: Any) -> None:
        """Deliver for a moment; the rest stays for the next pass of the loop."""
        signal = self._signal
        if signal is None:
            return
        signal.clear()
        until = time.monotonic() + _SLICE_SECONDS
        while self._next():
            if time.monotonic() >= until:
                break
        if self.inbox:
            signal.set()

    def close_connection(self, connection: Any) -> None:
        """Close all channels. In a forked child the parent's leases and descriptors are left alone."""
        mine = self._pid == os.getpid()
        if mine and self._loop is not None and self._signal is not None:
            self._loop.remove(self._signal.fileno())
        self._loop = None
        for channels in (self._avail_channels, self.channels):
            while channels:
                channels.pop().close()
        if not mine:
            return
        if self._expiring and self.store.owner_id is not None:
            self.store.routes.let_go(sorted(self._expiring), self.store.owner_id)
            self._expiring.clear()
        if self._signal is not None:
            self._signal.close()
            self._signal = None
        self._engine = None


def _address(client: Any) -> str:
    """The database URL of a kombu Connection: it strips ``cfqueue+`` itself."""
    hostname = str(client.hostname or "")
    return hostname if "://" in hostname else f"sqlite:///{hostname}"


# socket.timeout is what kombu's callers catch; it is TimeoutError since Python 3.10.
assert socket.timeout is TimeoutError
