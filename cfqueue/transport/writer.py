"""Group commit: threads put operations into a queue, one of them commits for all.

The first that comes leads: it takes the write lock, then everything that waits by then, and runs it
as one transaction. A leader that is done, or gives up, hands over to the next that waits.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from cfqueue.database import is_busy, translated
from cfqueue.errors import BrokerUnavailable
from cfqueue.transport import statements as sql
from cfqueue.transport import transaction
from cfqueue.transport.connection import Handle
from cfqueue.transport.operations import Put
from cfqueue.transport.transaction import Ready
from cfqueue.transport.write_lock import WriteLock

#: Most operations in one transaction, so that nobody waits long behind one.
MAX_GROUP = 500
#: Commits, or bytes of bodies, between two checkpoints: a write-ahead log that is never reset halves
#: the commit rate, since every commit then extends a file.
CHECKPOINT_COMMITS = 256
CHECKPOINT_BYTES = 8_000_000
#: First and longest pause after another program's transaction was in the way, in seconds. Others have the
#: write lock meanwhile: their file may be all right where ours is not.
_PAUSES = (0.002, 0.1)


class Ticket:
    """The operations of one `submit` call on their way through a transaction."""

    __slots__ = ("deadline", "done", "error", "group", "leads", "signal")

    def __init__(self, group: list[Ready], deadline: float) -> None:
        self.group = group
        self.deadline = deadline
        self.done = False
        self.error: BaseException | None = None
        self.leads = False
        self.signal: threading.Lock | None = None

    def finish(self, error: BaseException | None = None) -> None:
        """Tell the waiting thread that it is over."""
        self.error = error
        self.done = True
        self.wake()

    def wake(self) -> None:
        """Let the waiting thread look."""
        if self.signal is not None and self.signal.locked():
            with contextlib.suppress(RuntimeError):
                self.signal.release()


class Writer:
    """The write side of one database in one process."""

    def __init__(self, path: str, handle: Handle, lock: WriteLock) -> None:
        self._path = path
        self._handle = handle
        self._lock = lock
        self._gate = threading.Lock()
        self._waiting: deque[Ticket] = deque()
        self._led = False
        self._commits = 0
        self._bytes = 0
        # The file was busy when we last held the lock: look, before it is taken again.
        self._doubtful = False
        self._pause = _PAUSES[0]
        self._interruption: BaseException | None = None

    def submit(self, group: list[Ready], deadline: float) -> None:
        """Commit ``group``; returns when it is durable, raises when it is certain that it is not."""
        ticket = Ticket(group, deadline)
        with self._gate:
            leads = not self._led
            if leads:
                self._led = True
            else:
                ticket.signal = threading.Lock()
                ticket.signal.acquire()
            self._waiting.append(ticket)
        if leads:
            self._lead(ticket)
        else:
            self._follow(ticket)
        if ticket.error is not None:
            raise ticket.error

    def _follow(self, ticket: Ticket) -> None:
        assert ticket.signal is not None
        patient = False
        try:
            while not ticket.done and not ticket.leads:
                wait = 1.0 if patient else max(ticket.deadline - time.monotonic(), 0.0)
                if ticket.signal.acquire(timeout=wait):
                    continue
                with self._gate:
                    if ticket.leads or ticket.done:
                        continue
                    # If it does not wait, it is in a transaction right now: the outcome is near.
                    patient = ticket not in self._waiting
                    if not patient:
                        self._waiting.remove(ticket)
                if not patient:
                    ticket.error = ticket.error or self._unanswered()
                    return
        except BaseException:
            self._desert(ticket)
            raise
        if ticket.leads:
            self._lead(ticket)

    def _desert(self, ticket: Ticket) -> None:
        """The waiting thread was interrupted (Ctrl-C, a soft time limit)."""
        with self._gate:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
        if ticket.leads:
            self._hand_over(ticket)

    def _lead(self, ticket: Ticket) -> None:
        try:
            while not ticket.done:
                if not self._attempt(ticket) and time.monotonic() >= ticket.deadline:
                    ticket.error = ticket.error or self._unanswered()
                    return
        except (sqlite3.Error, OSError) as error:
            ticket.error = translated(error, self._path)
        finally:
            self._hand_over(ticket)

    def _hand_over(self, ticket: Ticket) -> None:
        with self._gate:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            if self._waiting:
                heir = self._waiting[0]
                heir.leads = True
                heir.wake()
            else:
                self._led = False

    def _attempt(self, ticket: Ticket) -> bool:
        """Take the lock and commit what waits; False when the lock or the file was not to be had."""
        if (busy := self._obstacle()) is not None:
            return self._put_off([ticket], busy)
        with self._lock.held(ticket.deadline) as locked:
            if not locked:
                return False
            group: list[Ticket] = []
            try:
                self._take(group)
                with self._handle.guard:
                    busy = self._commit(self._handle.opened(), group)
                    if not busy:
                        self._checkpoint(group)
            except sqlite3.Error as error:
                # Opening failed: the file, not what was asked of it.
                busy = error if is_busy(error) else None
                if busy is None:
                    self._fail(group, translated(error, self._path))
                    return True
            finally:
                self._put_back(group)
        if self._interruption is not None:
            interruption, self._interruption = self._interruption, None
            raise interruption
        if busy is not None:
            return self._put_off(group, busy)
        self._eased()
        return True

    def _obstacle(self) -> sqlite3.Error | None:
        """The error of a busy file; other errors are raised.

        A connection is opened and tried here, before the write lock is held. Where descriptors were closed
        under SQLite's hands a first read takes ten seconds, which must be nobody else's.
        """
        if self._handle.is_open and not self._doubtful:
            return None
        try:
            self._handle.probe()
        except sqlite3.Error as error:
            if not is_busy(error):
                raise
            return error
        return None

    def _put_off(self, group: Sequence[Ticket], busy: sqlite3.Error) -> bool:
        """Another program is in the way: pause, without the lock. False, for "not done"."""
        self._hindered()
        for item in group:
            # What it is told if its time is over before another attempt ends otherwise.
            item.error = translated(busy, self._path)
        return False

    def _hindered(self) -> None:
        self._doubtful = True
        time.sleep(self._pause)
        self._pause = min(self._pause * 2, _PAUSES[1])

    def _eased(self) -> None:
        self._doubtful = False
        self._pause = _PAUSES[0]

    def _unanswered(self) -> BrokerUnavailable:
        """The error of who waited for the lock until his deadline."""
        return BrokerUnavailable(
            f"{self._path}: the write lock was not had in time; nothing was stored. {self._lock.holder()} holds"
            " it: it may have been stopped in the middle of a write, or a program has a transaction open."
        )

    def _take(self, group: list[Ticket]) -> None:
        size = 0
        with self._gate:
            while self._waiting and size < MAX_GROUP:
                # In this order, so that an interruption between the two loses nobody.
                group.append(self._waiting[0])
                size += len(self._waiting.popleft().group)

    def _put_back(self, group: Sequence[Ticket]) -> None:
        rest = [item for item in group if not item.done]
        if rest:
            with self._gate:
                self._waiting.extendleft(item for item in reversed(rest) if item not in self._waiting)

    @staticmethod
    def _fail(group: Sequence[Ticket], error: Exception) -> None:
        for item in group:
            item.finish(error)

    def _commit(self, connection: sqlite3.Connection, group: list[Ticket]) -> sqlite3.Error | None:
        """One transaction for all; one each if that fails. Returns the error of a busy file."""
        try:
            self._transact(connection, [item for ticket in group for item in ticket.group])
        except transaction.Fenced:
            pass
        except sqlite3.Error as error:
            if is_busy(error):
                return error
            if len(group) == 1:
                group[0].finish(self._told(error))
                return None
        except (ValueError, TypeError, OverflowError) as error:
            if len(group) == 1:
                group[0].finish(error)
                return None
        else:
            for ticket in group:
                ticket.finish()
            return None
        return self._commit_each(connection, group)

    def _commit_each(self, connection: sqlite3.Connection, group: list[Ticket]) -> sqlite3.Error | None:
        """A stale settle or an error somewhere: everyone for himself, and settles row by row."""
        for ticket in group:
            try:
                self._transact(connection, ticket.group, careful=True)
            except sqlite3.Error as error:
                if is_busy(error):
                    return error
                ticket.finish(self._told(error))
            except (ValueError, TypeError, OverflowError) as error:
                ticket.finish(error)
            else:
                ticket.finish()
        return None

    def _told(self, error: sqlite3.Error) -> Exception:
        committing = getattr(error, "cfqueue_committing", False)
        return translated(error, self._path, committing=committing)

    def _transact(
        self, connection: sqlite3.Connection, group: Sequence[Ready], *, careful: bool = False
    ) -> None:
        execute = connection.execute
        single = transaction.is_single(group)
        changes = connection.total_changes
        committing = single
        try:
            if not single:
                execute(sql.BEGIN)
            transaction.run(execute, group, careful=careful)
            if not single:
                committing = True
                execute(sql.COMMIT)
        except BaseException as error:
            if connection.in_transaction:
                execute(sql.ROLLBACK)
            elif committing and not isinstance(error, sqlite3.Error) and connection.total_changes != changes:
                # A signal came right after the commit. It stands, so nobody may be told otherwise or be
                # put back; the interruption goes on when the lock has been given up.
                for item in group:
                    if item.raw is None and isinstance(item.op, Put):
                        item.raw = ()
                self._interruption = error
                return
            if committing and isinstance(error, sqlite3.Error):
                error.cfqueue_committing = True  # type: ignore[attr-defined]
            raise

    def _checkpoint(self, group: Sequence[Ticket]) -> None:
        self._commits += 1
        self._bytes += sum([item.weight for ticket in group for item in ticket.group])
        if self._commits >= CHECKPOINT_COMMITS or self._bytes >= CHECKPOINT_BYTES:
            self._commits = self._bytes = 0
            # The commit stands. A reader or a full disk may be in the way: the next one tries again.
            with contextlib.suppress(sqlite3.Error):
                self._handle.opened().execute(sql.CHECKPOINT)

    def exclusively(self, action: Callable[[sqlite3.Connection], Any], deadline: float) -> Any:
        """Run ``action(connection)`` as the one writer; for what is rare (schema, routes, sweeping)."""
        while True:
            if (busy := self._obstacle()) is not None:
                if time.monotonic() >= deadline:
                    raise translated(busy, self._path) from busy
                self._hindered()
                continue
            with self._lock.held(deadline) as locked:
                if not locked:
                    raise self._unanswered()
                try:
                    with self._handle.guard:
                        found = action(self._handle.opened())
                        # No cursor leaves the guard: it would keep the file open during a fork.
                        found = None if isinstance(found, sqlite3.Cursor) else found
                except sqlite3.Error as error:
                    if not is_busy(error) or time.monotonic() >= deadline:
                        raise translated(error, self._path) from error
                else:
                    self._eased()
                    return found
            self._hindered()
