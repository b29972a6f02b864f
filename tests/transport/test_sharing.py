"""Threads, processes, forks, deaths and stops around one file."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import claim, integrity, put, row, wait_for

from cfqueue.transport import transaction
from cfqueue.transport.operations import Ack, Claim, Put
from cfqueue.transport.store import Store

# Python 3.12 warns of what these tests are about: forks of a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

Run = Callable[..., "subprocess.Popen[str]"]


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_threads_share_commits(store: Store) -> None:
    put(store)
    ids: list[int] = []
    writes = []
    run = store._writer._transact
    store._writer._transact = lambda *a, **k: (writes.append(len(a[1])), run(*a, **k))[1]  # type: ignore[method-assign]

    def send() -> None:
        for _ in range(25):
            ids.extend(put(store))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids) == list(range(2, 202))
    assert sum(writes) == 200
    assert len(writes) < 200


def test_two_processes_never_lease_the_same_message(store: Store, run: Run) -> None:
    code = """
me = store.owner().id
done = []
while True:
    (found,) = store.submit([Claim(me, 'jobs', 7, batch='b')])
    if not found:
        break
    assert not store.submit([Ack([m.lease for m in found])])[0]
    done += [m.id for m in found]
print(*done)
"""
    put(store, *[row() for _ in range(600)])
    workers = [run(code), run(code)]
    lists = [_line(worker).split() for worker in workers]
    assert sorted(int(number) for found in lists for number in found) == list(range(1, 601))
    assert store.backlog("jobs").in_flight == 0


def test_a_killed_holders_messages_are_back_within_a_second(store: Store, run: Run) -> None:
    put(store, row(body="started"), row(body="buffered"), row(body="alone"))
    store.owner()
    (alone,) = [m for m in store.peek("jobs", 3) if m.body == "alone"]
    store.write(lambda c: c.execute("UPDATE cfqueue_messages SET suspicion = 2 WHERE id = ?", (alone.id,)))
    holder = run(
        "me = store.owner().id\n"
        "store.submit([Claim(me, 'jobs', 1, batch='b')]); store.submit([Claim(me, 'jobs', 1)])\n"
        "store.submit([Claim(me, 'jobs', 1, suspicion=2, batch='c', crash_delay_s=0)])\n"
        "print('held', flush=True); time.sleep(60)"
    )
    assert _line(holder) == "held"
    assert store.length("jobs") == 0
    killed = time.monotonic()
    holder.send_signal(signal.SIGKILL)
    wait_for(lambda: store.length("jobs") == 3)
    assert time.monotonic() - killed < 1.0
    found = {m.body: (m.suspicion, m.attempts) for m in store.peek("jobs", 3)}
    assert found == {"started": (1, 1), "buffered": (0, 1), "alone": (2, 2)}
    wait_for(lambda: len(list(Path(store.folder.path).glob("*.owner"))) == 1)
    assert integrity(store.path) == "ok"


def test_a_clean_exit_gives_back_uncharged_and_leaves_no_files(store: Store, run: Run) -> None:
    put(store, row())
    process = run(
        "store.listen(); store.submit([Claim(store.owner().id, 'jobs', 1, batch='b')])\nprint('held')"
    )
    assert _line(process) == "held"
    assert process.wait(10) == 0
    (back,) = store.peek("jobs", 1)
    assert (back.suspicion, back.attempts) == (0, 1)
    names = os.listdir(store.folder.path)
    assert [name for name in names if name.endswith((".owner", ".sock", ".new"))] == []


def test_a_stopped_owner_is_relieved_and_its_late_settle_is_fenced(path: str, run: Run) -> None:
    quick = {"stalled_seconds": 0.6, "beat_seconds": 0.1, "poll_seconds": 0.05}
    store = Store.at(path, **quick)
    try:
        put(store)
        store.owner()
        holder = run(
            "(found,) = store.submit([Claim(store.owner().id, 'jobs', 1, batch='b')])\n"
            "print('held', flush=True)\n"
            "while store.peek('jobs', 1) == [] and store.backlog('jobs').in_flight: time.sleep(0.01)\n"
            "print(*store.submit([Ack([found[0].lease])])[0], flush=True)\n"
            "print(len(store.submit([Claim(store.owner().id, 'jobs', 1, suspicion=None)])[0]))",
            **quick,
        )
        assert _line(holder) == "held"
        holder.send_signal(signal.SIGSTOP)
        wait_for(lambda: store.length("jobs") == 1)
        holder.send_signal(signal.SIGCONT)
        assert _line(holder) == "1"
        assert _line(holder) == "1"
    finally:
        store.close()


def test_a_beating_owner_is_left_alone(path: str, run: Run) -> None:
    quick = {"stalled_seconds": 0.5, "beat_seconds": 0.1, "poll_seconds": 0.05}
    store = Store.at(path, **quick)
    try:
        put(store, row(), row())
        claim(store, 1)
        other = run(
            "store.submit([Claim(store.owner().id, 'jobs', 1)]); print('held', flush=True); time.sleep(60)",
            **quick,
        )
        assert _line(other) == "held"
        beats = next(p for p in Path(store.folder.path).glob("*.owner") if store.owner().id not in p.name)
        start = beats.read_bytes()
        wait_for(lambda: int(beats.read_bytes()) >= int(start) + 10)  # ten beats: twice the stall limit
        assert store.backlog("jobs").in_flight == 2
    finally:
        store.close()


def test_an_owner_whose_file_was_deleted_makes_it_anew(store: Store) -> None:
    owner = store.owner()
    (file,) = Path(store.folder.path).glob("*.owner")
    file.unlink()
    owner.beat()
    assert file.exists()


def test_forks_under_load_hang_nobody(store: Store) -> None:
    put(store)
    stop = threading.Event()
    me = store.owner().id
    store.listen()

    def load() -> None:
        while not stop.is_set():
            store.submit([Put([row(queue="load")]), Claim(me, "load", 5)])
            store.length("load")

    threads = [threading.Thread(target=load, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    children = []
    for number in range(40):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                put(store, row(queue="children", body=str(number)))
                code = 0 if store.length("children") else 2
            finally:
                os._exit(code)
        children.append(child)
    codes = []
    deadline = time.monotonic() + 20
    for child in children:
        wait_for(lambda child=child: _ended(child, codes), max(deadline - time.monotonic(), 0.1))
    stop.set()
    for thread in threads:
        thread.join(10)
    assert codes == [0] * 40
    assert store.length("children") == 40
    assert integrity(store.path) == "ok"


def _ended(child: int, codes: list[int]) -> bool:
    found, status = os.waitpid(child, os.WNOHANG)
    if found:
        codes.append(os.waitstatus_to_exitcode(status))
    return bool(found)


def test_a_forked_child_holds_nothing_of_its_parent(store: Store) -> None:
    put(store, row(), row())
    (held,) = claim(store, 1)
    listener = store.listen()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            me = store.owner().id
            store.submit([Claim(me, "jobs", 1)])
            store.close()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert store.backlog("jobs").in_flight == 1
    assert store.submit([Ack([held.lease])]) == [frozenset()]
    assert Path(listener._path or "").exists()


def test_writers_of_several_processes_all_get_their_turn(store: Store, run: Run) -> None:
    code = """
print('ready', flush=True)
end = time.monotonic() + 1.0
count, longest = 0, 0.0
while time.monotonic() < end:
    start = time.monotonic(); put(store); longest = max(longest, time.monotonic() - start); count += 1
print(count, longest)
"""
    writers = [run(code) for _ in range(4)]
    for writer in writers:
        _line(writer)
    results = [_line(writer).split() for writer in writers]
    counts = [int(count) for count, _ in results]
    assert min(counts) > max(counts) / 20
    assert max(float(longest) for _, longest in results) < 1.0
    assert store.length("jobs") == sum(counts)


def test_a_kill_in_the_middle_of_writing_loses_nothing_and_breaks_nothing(store: Store, run: Run) -> None:
    writer = run("n = 0\nwhile True:\n    put(store, row(), row()); n += 2; print(n, flush=True)")
    confirmed = 0
    while confirmed < 200:
        confirmed = int(_line(writer))
    writer.kill()
    assert writer.stdout is not None
    confirmed = max([confirmed, *[int(line) for line in writer.stdout.read().split("\n")[:-1]]])
    assert confirmed <= store.length("jobs") <= confirmed + 2
    assert store.length("jobs") % 2 == 0
    assert integrity(store.path) == "ok"
    assert put(store)


def test_senders_that_wait_in_vain_store_nothing(store: Store) -> None:
    put(store)
    with ForeignLock(store):
        failures: list[BaseException] = []

        def send() -> None:
            try:
                store.submit([Put([row()])], timeout=0.1)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
    assert len(failures) == 4
    assert all("nothing was stored" in str(failure) for failure in failures)
    assert store.length("jobs") == 1
    assert put(store)


class ForeignLock:
    """The write lock held by a stopped process, as far as this one can tell."""

    def __init__(self, store: Store) -> None:
        self._path = store.folder.file("write.lock")

    def __enter__(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)


def test_a_removed_file_is_noticed_and_made_anew(store: Store) -> None:
    put(store)
    for suffix in ("", "-wal", "-shm"):
        Path(store.path + suffix).unlink()
    shutil.rmtree(store.folder.path)
    assert put(store) == [1]
    assert store.length("jobs") == 1
    assert integrity(store.path) == "ok"
    assert Path(store.folder.file("write.lock")).exists()


def test_store_at_gives_one_store_per_file(path: str, tmp_path: Path) -> None:
    store = Store.at(path)
    link = tmp_path / "link.db"
    link.symlink_to(path)
    assert Store.at(str(link)) is store
    store.close()
    again = Store.at(path)
    assert again is not store
    again.close()


@pytest.mark.parametrize("interruption", ["before", "after"])
def test_an_interruption_around_the_commit_neither_doubles_nor_loses(store: Store, interruption: str) -> None:
    put(store)
    run = transaction.run

    def interrupted(execute: object, group: object, **more: object) -> None:
        if interruption == "after":
            run(execute, group, **more)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    transaction.run = interrupted  # type: ignore[assignment]
    try:
        with pytest.raises(KeyboardInterrupt):
            put(store)
    finally:
        transaction.run = run
    # One INSERT is its own transaction: interrupted after it, the message is there, once.
    assert store.length("jobs") == (2 if interruption == "after" else 1)
    assert put(store)


def test_claims_of_one_process_in_two_threads_do_not_overlap(store: Store) -> None:
    put(store, *[row() for _ in range(300)])
    me = store.owner().id
    got: list[int] = []

    def take() -> None:
        while found := store.submit([Claim(me, "jobs", 3)])[0]:
            got.extend(m.id for m in found)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1, 301))
