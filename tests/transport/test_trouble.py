"""Files that cannot be used, disks that are full, and texts that say what to do."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, claim, put, row

from cfqueue import database
from cfqueue.errors import BrokerFull, BrokerUnavailable, ConfigurationError, StoreCorrupt
from cfqueue.transport.operations import Ack, Put
from cfqueue.transport.store import Store


def test_a_file_locked_by_another_program_is_named_and_nothing_is_stored(store: Store) -> None:
    put(store)
    foreign = sqlite3.connect(store.path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"locked by another program.*nothing was stored"):
        store.submit([Put([row()])], timeout=0.3)
    assert 0.25 < time.monotonic() - started < 2.0
    foreign.execute("ROLLBACK")
    foreign.close()
    assert store.length("jobs") == 1
    assert put(store)


def test_a_lock_that_ends_in_time_is_waited_for(store: Store) -> None:
    put(store)
    foreign = sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
    foreign.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.2, lambda: foreign.execute("ROLLBACK"))
    timer.start()
    assert put(store) == [2]
    timer.join()
    foreign.close()


@pytest.mark.parametrize("content", [b"hello, this is a text file and no database\n" * 50, b"\x00" * 8192])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match=r"notes\.txt is damaged or is not a SQLite database"):
        Store.at(str(path))
    assert path.read_bytes() == content


def test_a_damaged_database(path: str) -> None:
    store = Store.at(path)
    put(store, *[row(body="x" * 500) for _ in range(500)])
    store.close()
    size = Path(path).stat().st_size
    with Path(path).open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with pytest.raises(StoreCorrupt, match="recover"):
        _open_and_put(path)


def _open_and_put(path: str) -> None:
    damaged = Store.at(path)
    try:
        put(damaged)
    finally:
        damaged.close()


def test_a_newer_schema_is_refused(path: str) -> None:
    Store.at(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE cfqueue_parts SET version = 99 WHERE name = 'transport'")
        connection.commit()
    with pytest.raises(BrokerUnavailable, match=r"newer cfqueue.*schema 99.*Upgrade"):
        Store.at(path)


def test_a_missing_folder_and_a_folder_as_file(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match=r"does not exist\. Create it"):
        Store.at(str(tmp_path / "no" / "queue.db"))
    with pytest.raises(BrokerUnavailable, match="is a folder"):
        Store.at(str(tmp_path))


def _as_nobody(action: Callable[[], None]) -> str:
    """What ``action`` raises when the user may not write (root may write anything)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        text = "nothing raised"
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            action()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        finally:
            os.write(writing, text.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user can reach: pytest's own are private."""
    folder = Path(tempfile.mkdtemp(prefix="cfqueue-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_file(open_folder: Path) -> None:
    path = str(open_folder / "queue.db")
    store = Store.at(path)
    put(store)
    store.close()
    Path(path).chmod(0o444)
    Path(f"{path}.d/write.lock").chmod(0o666)
    open_folder.chmod(0o777)
    text = _as_nobody(lambda: put(Store.at(path)))
    assert text.startswith("BrokerUnavailable: ")
    assert "read-only" in text
    assert "nothing was stored" in text


def test_a_read_only_folder(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    text = _as_nobody(lambda: put(Store.at(str(open_folder / "queue.db"))))
    assert text.startswith("BrokerUnavailable: ")
    assert "may write there" in text


def test_a_full_database_refuses_sends_and_still_takes_acks(store: Store) -> None:
    put(store, *[row(body="x" * 1000) for _ in range(300)])
    held = claim(store, 100)
    pages = store.read_one("PRAGMA page_count")[0]
    store.write(lambda connection: connection.execute(f"PRAGMA max_page_count={pages}").fetchone())
    with pytest.raises(BrokerFull, match="disk is full; nothing was stored"):
        put(store, row(body="y" * 100_000))
    assert store.length("jobs") == 200
    assert store.submit([Ack([m.lease for m in held])]) == [frozenset()]
    assert put(store)


def test_a_full_disk(tmp_path: Path) -> None:
    """On a file system of 2 MB of its own: sends fail as full, and succeed when there is room again."""
    code = f"""
import os, sys
sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
from conftest import *
from cfqueue.errors import BrokerFull
from cfqueue.transport.operations import Ack

# Python 3.12 warns of what these tests are about: forks of a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
store = Store.at({str(tmp_path / "disk" / "queue.db")!r})
put(store, *[row(body="x" * 1000) for _ in range(100)])
sent = 100
held = claim(store, 50)
full = 0
try:
    while True:
        put(store, row(body="x" * 20000))
        sent += 1
except BrokerFull as error:
    assert "nothing was stored" in str(error), error
    full = 1
assert full and store.length("jobs") == sent - 50, (full, store.length("jobs"), sent)
ballast = {str(tmp_path / "disk" / "ballast")!r}
os.unlink(ballast)
assert store.submit([Ack([m.lease for m in held])]) == [frozenset()]
put(store, row())
assert store.length("jobs") == sent - 49
store.close()
print("done")
"""
    (tmp_path / "disk").mkdir()
    script = (
        f"mount -t tmpfs -o size=2m tmpfs {tmp_path}/disk &&"
        f" head -c 600000 /dev/zero > {tmp_path}/disk/ballast && exec {sys.executable} {tmp_path}/full.py"
    )
    (tmp_path / "full.py").write_text(code)
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting needs root")
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("no mount namespaces here")
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "mount" in done.stderr and "done" not in done.stdout and "Traceback" not in done.stderr:
        pytest.skip("tmpfs cannot be mounted here")
    assert done.stdout.strip() == "done", done.stderr


def test_network_file_systems_are_refused_or_warned_of(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "file_system", lambda _: "nfs4")
    with pytest.raises(ConfigurationError, match=r"network file system.*RabbitMQ or Redis"):
        Store.at(path)
    with pytest.warns(RuntimeWarning, match="network file system"):
        Store.at(path, allow_network_file_system=True).close()


def test_the_file_system_of_a_folder_is_found() -> None:
    assert database.file_system("/proc/self") == "proc"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("cfqueue+sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("cfqueue+postgresql://x/y", "not in 'postgresql'"),
        ("what is this", "not a database URL"),
    ],
)
def test_addresses_that_are_no_file(url: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        database.sqlite_path(url)


def test_addresses_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert database.sqlite_path("cfqueue+sqlite:////var/q.db") == "/var/q.db"
    assert database.sqlite_path("sqlite:///q.db") == str(tmp_path / "q.db")
    assert database.sqlite_path("cfqueue+sqlite://///var/q.db?x=1") == "/var/q.db"
    assert database.sqlite_path("cfqueue+sqlite:////var/a%20%2525%3Fb/q.db") == "/var/a %25?b/q.db"
    assert database.sqlite_path("cfqueue+sqlite:////var/a b/é.db") == "/var/a b/é.db"


def test_the_settings_that_durability_rests_on(store: Store) -> None:
    values = store.write(
        lambda connection: [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "wal_autocheckpoint")
        ]
    )
    assert values == ["wal", 2, 0]


def test_the_log_is_reset_again_and_again(store: Store) -> None:
    for _ in range(1100):
        put(store)
    pages = Path(store.path + "-wal").stat().st_size // 4096
    assert pages < 256 * 8
