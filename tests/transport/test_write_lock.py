"""The lock that every writer of a database takes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import wait_for

from cfqueue.transport import write_lock
from cfqueue.transport.write_lock import WriteLock

# Python 3.12 warns of what these tests are about: forks of a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "write.lock")


@pytest.fixture
def lock(place: str) -> Iterator[WriteLock]:
    lock = WriteLock(place)
    yield lock
    lock.close()


class Rival:
    """Another process's hold on the lock: another open file is just as foreign to flock."""

    def __init__(self, place: str) -> None:
        self._descriptor = os.open(place, os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def leave(self) -> None:
        os.close(self._descriptor)


def _is_free(place: str) -> bool:
    descriptor = os.open(place, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


def test_it_excludes_other_processes_and_is_given_up(lock: WriteLock, place: str) -> None:
    with lock.held(_soon()) as had:
        assert had
        assert not _is_free(place)
    assert _is_free(place)


def test_it_excludes_other_threads(lock: WriteLock) -> None:
    order: list[str] = []

    def take() -> None:
        with lock.held(_soon()) as had:
            order.append(f"thread {had}")

    with lock.held(_soon()):
        thread = threading.Thread(target=take)
        thread.start()
        with lock.held(_soon(0.05)) as had:
            assert not had
        order.append("main")
    thread.join()
    assert order == ["main", "thread True"]


def test_a_deadline_is_kept_and_the_lock_not_taken_later(lock: WriteLock, place: str) -> None:
    rival = Rival(place)
    started = time.monotonic()
    with lock.held(started + 0.1) as had:
        assert not had
    assert 0.09 < time.monotonic() - started < 1.0
    rival.leave()
    wait_for(lambda: _is_free(place))


def test_who_comes_after_one_that_gave_up_really_has_it(lock: WriteLock, place: str) -> None:
    rival = Rival(place)
    for _ in range(3):
        with lock.held(_soon(0.02)) as had:
            assert not had
    threading.Timer(0.05, rival.leave).start()
    with lock.held(_soon()) as had:
        assert had
        assert not _is_free(place)
    assert _is_free(place)
    with lock.held(_soon()) as had:
        assert had
        assert not _is_free(place)


def test_a_child_does_not_share_it(lock: WriteLock, place: str) -> None:
    rival = Rival(place)
    with lock.held(_soon(0.02)):
        pass  # the waiting thread exists, and waits
    child = os.fork()
    if child == 0:
        lock.forked()
        os._exit(0 if lock._descriptor < 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    rival.leave()
    with lock.held(_soon()) as had:
        assert had
        assert not _is_free(place)


def test_threads_under_contention_never_overlap(lock: WriteLock, place: str) -> None:
    other = WriteLock(place)
    inside = 0
    worst = 0

    def work(mine: WriteLock) -> None:
        nonlocal inside, worst
        for _ in range(150):
            with mine.held(_soon()) as had:
                assert had
                inside += 1
                worst = max(worst, inside)
                inside -= 1

    threads = [threading.Thread(target=work, args=(each,)) for each in (lock, other) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert worst == 1


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="Linux lists the locks of files")
def test_who_waits_long_says_once_who_holds_it(
    lock: WriteLock, place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(write_lock, "COMPLAINT_SECONDS", 0.05)
    code = (
        f"import fcntl, time; file = open({place!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('had', flush=True); time.sleep(60)"
    )
    rival = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert rival.stdout is not None
        rival.stdout.readline()
        for _ in range(3):
            with lock.held(_soon(0.2)) as had:
                assert not had
        assert lock.holder().startswith(f"process {rival.pid} (")
    finally:
        rival.kill()
        rival.communicate()
    (record,) = caplog.records
    assert f"process {rival.pid} (" in record.getMessage()
    with lock.held(_soon()) as had:
        assert had
        assert lock.holder() == f"another thread of this process ({os.getpid()})"
    assert lock.holder() == "another process"
