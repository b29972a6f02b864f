"""The I/O thread behind kombu's consumers: it claims for all channels and settles for all, in groups.

A channel states how much it may still take; the engine asks the store only for queues where something
may wait, and puts what it got into the client's inbox. One engine per store and process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from cfqueue import clock
from cfqueue.errors import BrokerError
from cfqueue.transport.operations import Ack, Claim, Leased, Op, Release
from cfqueue.transport.store import Store

_log = logging.getLogger("cfqueue.transport")
#: Most messages in one claim for a channel without a prefetch limit.
UNLIMITED = 100
#: A channel asks again when it has room for this many (or for half its prefetch): larger groups.
_ROOM = 4
_LONGEST_SLEEP_MS = 60_000
#: First and longest pause when the file cannot be written, in seconds.
_PAUSES = (0.1, 2.0)


class Signal:
    """A descriptor that any thread can make readable."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self._read = self._write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:  # pragma: no cover - systems without eventfd
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)
        self._word = (1).to_bytes(8, "little")
        self.closed = False
        # A number that was closed may be another file's by now: nothing may be written there.
        self._closing = threading.Lock()

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._read

    def set(self) -> None:
        """Make it readable."""
        with self._closing, contextlib.suppress(OSError):
            if not self.closed:
                os.write(self._write, self._word)

    def clear(self) -> None:
        """Make it unreadable."""
        with self._closing, contextlib.suppress(OSError):
            if not self.closed:
                os.read(self._read, 4096)

    def close(self) -> None:
        """Give the descriptor back."""
        with self._closing:
            if self.closed:
                return
            self.closed = True
            os.close(self._read)
            if self._write != self._read:
                os.close(self._write)


class Intake(Protocol):
    """What a channel shows to the engine."""

    def appetite(self) -> tuple[Sequence[str], int, int]:
        """The queues it consumes, how many more messages it may take, and its prefetch (0: no limit)."""

    def keeps(self, queue: str) -> bool:
        """False when what is delivered from ``queue`` is removed at once (a consumer without acks)."""

    def receive(self, queue: str, messages: list[Leased]) -> bool:
        """Take delivery; False when the channel or the consumer has gone meanwhile."""


class Engine:
    """Claims and settles for every channel of this process; `Engine.of` gives the one of a store."""

    @classmethod
    def of(cls, store: Store) -> Engine:
        """The engine of ``store``, started on first use."""
        with _engines_lock:
            engine = _engines.get(store)
            if engine is None or engine.stopped:
                engine = _engines[store] = cls(store)
        return engine

    def __init__(self, store: Store) -> None:
        self._store = store
        self.owner = store.owner().id
        self._listener = store.listen()
        self._signal = Signal()
        self._settles: deque[Op] = deque()
        self._intakes: list[Intake] = []
        # Queues known to be empty, and until when (milliseconds; a wake-up ends it too).
        self._empty: dict[str, float] = {}
        self._turn = 0
        self.stopped = False
        self._stopping = threading.Event()
        self._asleep = False
        self._pid = os.getpid()
        store.before_leaving(self.stop)
        self._thread = threading.Thread(target=self._run, name="cfqueue-engine", daemon=True)
        self._thread.start()

    def join(self, intake: Intake) -> None:
        """Serve a channel from now on."""
        if intake not in self._intakes:
            self._intakes = [*self._intakes, intake]
        self.wake()

    def leave(self, intake: Intake) -> None:
        """Serve it no more; what it still holds is its own to give back."""
        self._intakes = [other for other in self._intakes if other is not intake]

    def settle(self, op: Op) -> None:
        """Have a settle committed soon, with others; survives a full disk, parked until it is written."""
        self._settles.append(op)
        if self._asleep:
            self._signal.set()

    def wake(self, *queues: str) -> None:
        """Look again: an appetite has changed, or ``queues`` have a new consumer."""
        for queue in queues:
            self._empty.pop(queue, None)
        self._signal.set()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._signal.fileno(), select.POLLIN)
        poll.register(self._listener.fileno(), select.POLLIN)
        parked: list[Op] = []
        pause = _PAUSES[0]
        while not self._stopping.is_set():
            try:
                if self._turn_once(parked):
                    pause = _PAUSES[0]
                else:
                    self._sleep(poll)
            except (BrokerError, OSError) as error:
                if self._stopping.is_set():
                    break
                if pause == _PAUSES[0]:
                    _log.warning(
                        "%d acks and returns wait until the broker can write again: %s", len(parked), error
                    )
                self._stopping.wait(pause)
                pause = min(pause * 2, _PAUSES[1])
            except Exception:
                # A fault of ours must not end deliveries for good.
                _log.exception("Serving %s failed, trying again", self._store.path)
                self._stopping.wait(_PAUSES[1])
        self._flush(parked)

    def _turn_once(self, parked: list[Op]) -> bool:
        """Settle and claim what there is; False when there was nothing to do."""
        self._woken(self._listener.drain())
        while self._settles:
            parked.append(self._settles.popleft())
        claims = self._claims(settling=bool(parked))
        ops: list[Op] = [*parked, *(claim for _, claim in claims)]
        if not ops:
            return False
        results = self._store.submit(ops)
        for op, fenced in zip(parked, results, strict=False):
            if fenced:
                _log.info("%s came late: rows %s belong to others by now.", type(op).__name__, sorted(fenced))
        settled = len(parked)
        parked.clear()
        for (intake, claim), messages in zip(claims, results[settled:], strict=True):
            self._deliver(intake, claim, messages)
        return True

    def _claims(self, *, settling: bool) -> list[tuple[Intake, Claim]]:
        now = clock.now_ms()
        claims: list[tuple[Intake, Claim]] = []
        waits: dict[str, bool] = {}
        self._turn += 1
        for intake in self._intakes:
            queues, room, prefetch = intake.appetite()
            if not queues or room < (min(_ROOM, max(1, prefetch // 2)) if prefetch else 1):
                continue
            start = self._turn % len(queues)
            hungry = [
                queue
                for queue in (*queues[start:], *queues[:start])
                if self._may_have(queue, now, waits, ask=not settling)
            ]
            if not hungry:
                continue
            share = max(1, -(-room // len(hungry)))
            claims += [(intake, Claim(self.owner, queue, share, None, now)) for queue in hungry[:room]]
        return claims

    def _may_have(self, queue: str, now: int, waits: dict[str, bool], *, ask: bool) -> bool:
        """Whether to claim from ``queue``; with ``ask`` a read decides, so that no lock is taken in vain."""
        if self._empty.get(queue, 0) > now:
            return False
        if not ask:
            return True
        if queue not in waits:
            waits[queue] = self._store.is_waiting(queue, now)
            if not waits[queue]:
                self._mark_empty(queue, now)
        return waits[queue]

    def _mark_empty(self, queue: str, now: int) -> None:
        due = self._store.next_due([queue], now)
        self._empty[queue] = now + _LONGEST_SLEEP_MS if due is None else due

    def _deliver(self, intake: Intake, claim: Claim, messages: list[Leased]) -> None:
        if len(messages) < claim.limit:
            # A put between the claim and this read rings the bell, which ends the mark.
            self._mark_empty(claim.queue, claim.now_ms)
        if not messages:
            return
        leases = [message.lease for message in messages]
        keeps = intake.keeps(claim.queue)
        if not intake.receive(claim.queue, messages):
            self._settles.append(Release(leases))
        elif not keeps:
            self._settles.append(Ack(leases))

    def _sleep(self, poll: select.poll) -> None:
        self._asleep = True
        try:
            if self._settles or self._stopping.is_set():
                return
            now = clock.now_ms()
            until = min(self._empty.values(), default=now + _LONGEST_SLEEP_MS)
            wait = min(max(until - now, 1), _LONGEST_SLEEP_MS)
            for descriptor, _ in poll.poll(wait):
                if descriptor == self._signal.fileno():
                    self._signal.clear()
                else:
                    self._woken(self._listener.drain())
        finally:
            self._asleep = False
        now = clock.now_ms()
        for queue in [queue for queue, until in self._empty.items() if until <= now]:
            del self._empty[queue]

    def _woken(self, names: set[str]) -> None:
        if "*" in names:
            self._empty.clear()
        for name in names:
            self._empty.pop(name, None)

    def _flush(self, parked: list[Op]) -> None:
        """The last settles, when the process leaves."""
        parked.extend(self._settles)
        self._settles.clear()
        if parked:
            try:
                self._store.submit(parked)
            except BrokerError as error:
                _log.error("%d acks and returns were not written; their messages come again: %s",
                           len(parked), error)  # fmt: skip

    def stop(self) -> None:
        """Settle what waits and end the thread; the store calls it before it closes."""
        if self.stopped or os.getpid() != self._pid:
            return
        self.stopped = True
        self._stopping.set()
        self._signal.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        self._flush([])
        self._listener.close()
        self._signal.close()
        if _engines.get(self._store) is self:
            del _engines[self._store]


_engines: dict[Store, Engine] = {}
_engines_lock = threading.Lock()


def _forked() -> None:
    global _engines_lock  # noqa: PLW0603 - the inherited lock may belong to a thread that is not here
    _engines_lock = threading.Lock()
    _engines.clear()


os.register_at_fork(after_in_child=_forked)
