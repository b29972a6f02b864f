"""Forks of a process that uses the file: nothing of SQLite's is inherited, and nothing of the parent's is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import claim, integrity, put, row, wait_for

from cfqueue import database
from cfqueue.errors import BrokerUnavailable
from cfqueue.transport.operations import Ack, Claim, Put
from cfqueue.transport.store import Store
from cfqueue.transport.write_lock import WriteLock

# Python 3.12 warns of what these tests are about: forks of a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are listed on Linux")


def fork(action: Callable[[], object], *, close: bool = True) -> int:
    """A child that closes what it inherited, as Celery's embedded Beat does, and runs ``action``."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(20)  # a child that waits for ever is ended, and counted as failed
            if close:
                os.closerange(3, 1024)
            action()
            code = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def open_files(path: str) -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [name for name in found if name in {path, f"{path}-wal", f"{path}-shm"}]


def test_a_child_that_closes_all_descriptors_sends_and_blocks_nobody(store: Store) -> None:
    put(store)
    store.length("jobs")
    store.owner()
    started = time.monotonic()
    child = fork(lambda: [put(store, row(queue="child")) for _ in range(20)])
    for _ in range(20):
        put(store)
    assert ended(child) == 0
    assert time.monotonic() - started < 5
    assert (store.length("jobs"), store.length("child")) == (21, 20)
    assert integrity(store.path) == "ok"


@needs_proc
def test_a_child_inherits_no_open_database(store: Store, path: str) -> None:
    put(store)
    store.length("jobs")
    store.declare("declared")  # statements of every kind: a cursor that is left keeps a file open
    store.routes.bind("declared", "amq.direct", "key", None)
    store.routes.declare_exchange("exchange", "topic", durable=True, auto_delete=False, arguments={})
    store.submit([Ack([m.lease for m in claim(store)])])
    store.purge("jobs")
    assert open_files(path)

    def look() -> None:
        assert open_files(path) == []
        put(store)
        assert open_files(path)

    assert ended(fork(look, close=False)) == 0


def test_a_daemon_and_a_grandchild_send(store: Store) -> None:
    put(store)

    def middle() -> None:
        put(store, row(queue="middle"))
        assert ended(fork(lambda: put(store, row(queue="last")))) == 0
        put(store, row(queue="middle"))

    assert ended(fork(middle)) == 0
    assert (store.length("middle"), store.length("last")) == (2, 1)


def test_servers_that_fork_after_they_have_sent(store: Store) -> None:
    put(store)

    def serve() -> None:
        threads = [
            threading.Thread(target=lambda: [put(store, row(queue="served")) for _ in range(10)])
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    children = [fork(serve, close=number % 2 == 0) for number in range(4)]
    assert [ended(child) for child in children] == [0] * 4
    assert store.length("served") == 80
    assert integrity(store.path) == "ok"


def test_the_parents_leases_and_listeners_survive_its_forks(path: str) -> None:
    quick = {"stalled_seconds": 0.6, "beat_seconds": 0.1, "poll_seconds": 0.05}
    store = Store.at(path, **quick)
    try:
        put(store, row(), row())
        (held, _) = claim(store, 2)
        listener = store.listen()
        other = os.fork()
        if other == 0:  # one that looks for dead and stopped owners meanwhile
            store.owner()
            time.sleep(60)
            os._exit(0)
        try:
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                assert ended(fork(lambda: put(store, row(queue="children")))) == 0
            listener.drain()
            assert ended(fork(lambda: put(store, row(queue="wake")))) == 0
            woken: set[str] = set()
            wait_for(lambda: woken.update(listener.drain()) or "wake" in woken)
        finally:
            os.kill(other, signal.SIGKILL)
            ended(other)
        assert store.backlog("jobs").in_flight == 2
        assert store.submit([Ack([held.lease])]) == [frozenset()]
    finally:
        store.close()


def test_forks_by_several_threads_under_load(store: Store) -> None:
    put(store)
    me = store.owner().id
    stop = threading.Event()
    failures: list[BaseException] = []
    codes: list[int] = []
    counted = 0

    def load() -> None:
        nonlocal counted
        try:
            while not stop.is_set():
                (_, found) = store.submit([Put([row(queue="load")]), Claim(me, "load", 5)])
                store.submit([Ack([m.lease for m in found])])
                store.length("load")
                store.declare(f"declared-{counted}")
                counted += 1
        except BaseException as error:
            failures.append(error)

    def spawn() -> None:
        for _ in range(25):
            child = fork(lambda: (put(store, row(queue="children")), store.length("jobs")))
            codes.append(ended(child))

    loads = [threading.Thread(target=load) for _ in range(3)]
    spawners = [threading.Thread(target=spawn) for _ in range(2)]
    for thread in [*loads, *spawners]:
        thread.start()
    for thread in spawners:
        thread.join(60)
    stop.set()
    for thread in loads:
        thread.join(10)
    assert failures == []
    assert codes == [0] * 50
    assert counted
    assert store.length("children") == 50
    assert integrity(store.path) == "ok"


def test_a_fork_in_the_middle_of_our_own_statement_breaks_nothing(store: Store) -> None:
    """A signal handler may fork while its thread is in a transaction."""
    put(store)

    def action(connection: sqlite3.Connection) -> int:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE cfqueue_messages SET priority = 3")
        assert ended(fork(lambda: None, close=False)) == 0
        connection.execute("COMMIT")
        return 1

    assert store.write(action) == 1
    assert [m.priority for m in store.peek("jobs", 10)] == [3]
    assert put(store)
    assert integrity(store.path) == "ok"


def test_a_fork_costs_no_checkpoint_until_the_log_is_large(store: Store) -> None:
    """Nobody else has the file open: SQLite would write the log into the file at each fork."""
    put(store)
    log = Path(store.path + "-wal")
    size = log.stat().st_size
    assert ended(fork(lambda: None)) == 0
    assert log.stat().st_size == size
    put(store, row(body="x" * (database.KEPT_LOG_BYTES + 1)))
    assert ended(fork(lambda: None)) == 0
    assert not log.exists() or log.stat().st_size < size
    assert store.length("jobs") == 2
    put(store)
    assert ended(fork(lambda: put(store))) == 0
    assert store.length("jobs") == 4
    assert integrity(store.path) == "ok"


def test_the_keeper_takes_a_new_connection_for_a_change(store: Store) -> None:
    """SQLite's change counter starts anew with it, maybe at the same number."""
    version = store.version()
    assert store.version() == version
    assert ended(fork(lambda: put(store))) == 0
    assert store.version() != version


def test_a_long_path_has_no_descriptor_of_the_parents(tmp_path: Path) -> None:
    """Sockets in a folder whose path is too long are reached through a descriptor of it."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    store = Store.at(str(folder / "queue.db"))
    try:
        listener = store.listen()
        put(store)
        listener.drain()
        assert ended(fork(lambda: put(store, row(queue="child")))) == 0
        names: set[str] = set()
        wait_for(lambda: names.update(listener.drain()) or names)
        assert store.length("child") == 1
    finally:
        store.close()


def test_who_cannot_use_the_file_does_not_hold_the_write_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store)
    looks = 0

    def busy() -> None:
        nonlocal looks
        looks += 1
        error = sqlite3.OperationalError("locking protocol")
        error.sqlite_errorcode = sqlite3.SQLITE_PROTOCOL
        raise error

    store._write.before_fork()
    monkeypatch.setattr(store._write, "probe", busy)
    monkeypatch.setattr(WriteLock, "held", None)  # it is not even asked for
    with pytest.raises(BrokerUnavailable, match=r"File descriptors.*were closed.*Restart this process"):
        store.submit([Put([row()])], timeout=0.2)
    with pytest.raises(BrokerUnavailable, match="nothing was stored"):
        store.write(lambda connection: connection.execute("SELECT 1"), timeout=0.2)
    assert 2 < looks < 60
    monkeypatch.undo()
    assert put(store) == [2]


def test_others_have_the_write_lock_while_a_foreign_transaction_is_waited_for(store: Store) -> None:
    put(store)
    other = WriteLock(store.folder.file("write.lock"))
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        sender = threading.Thread(target=lambda: put(store))
        sender.start()
        time.sleep(0.2)
        longest = 0.0
        for _ in range(10):
            start = time.monotonic()
            with other.held(start + 5) as had:
                assert had
            longest = max(longest, time.monotonic() - start)
            time.sleep(0.01)
        foreign.execute("ROLLBACK")
    sender.join(10)
    other.close()
    assert longest < 1.0
    assert store.length("jobs") == 2


def test_a_read_waits_for_who_has_the_file_for_itself_for_a_moment(store: Store) -> None:
    put(store)
    store._write.before_fork()
    store._read.before_fork()
    foreign = sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
    foreign.execute("PRAGMA locking_mode=EXCLUSIVE")
    foreign.execute("BEGIN IMMEDIATE")
    foreign.execute("COMMIT")
    timer = threading.Timer(0.3, foreign.close)
    timer.start()
    assert store.length("jobs") == 1
    timer.join()
