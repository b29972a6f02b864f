"""Listeners: woken quickly, idle when nothing happens, also where sockets cannot be."""

from __future__ import annotations

import os
import select
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import claim, put, row, wait_for

from cfqueue.transport.operations import Release
from cfqueue.transport.store import Store


def _readable(listener: Any, seconds: float) -> bool:
    return bool(select.select([listener], [], [], seconds)[0])


def _quiet(listener: Any) -> None:
    """Wait until the keeper has told of everything that happened so far."""
    wait_for(lambda: not _readable(listener, 0.3) or listener.drain() is None, seconds=5)


def test_a_put_of_another_process_wakes_at_once(store: Store, run: Callable[..., Any]) -> None:
    listener = store.listen()
    sender = run(
        "for _ in range(20):\n    sys.stdin = None; time.sleep(0.02)\n"
        "    print(time.monotonic(), flush=True); put(store)"
    )
    delays = []
    for _ in range(20):
        sent = float(sender.stdout.readline())
        assert _readable(listener, 5)
        delays.append(time.monotonic() - sent)
        wait_for(lambda: "jobs" in listener.drain())
    assert statistics.median(delays) < 0.02


def test_wake_ups_name_the_queues(store: Store) -> None:
    listener = store.listen()
    _quiet(listener)
    put(store, row(queue="a"), row(queue="b"))
    assert _readable(listener, 1)
    assert {"a", "b"} <= listener.drain()
    (m,) = claim(store, queue="a")
    _quiet(listener)
    store.submit([Release([m.lease])])
    assert _readable(listener, 1)
    assert "*" in listener.drain()


def test_nothing_happens_while_nothing_happens(store: Store) -> None:
    listener = store.listen()
    store.owner()
    _quiet(listener)
    assert not _readable(listener, 0.6)


def test_a_change_by_any_sqlite_program_is_noticed(store: Store) -> None:
    listener = store.listen()
    put(store)
    _quiet(listener)
    import sqlite3

    foreign = sqlite3.connect(store.path)
    foreign.execute("UPDATE cfqueue_messages SET priority = 1")
    foreign.commit()
    foreign.close()
    assert _readable(listener, 2)


@pytest.mark.parametrize("proc", [True, False])
def test_a_long_path_is_no_obstacle(tmp_path: Path, proc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    if not proc:
        monkeypatch.setattr("cfqueue.transport.wakeup._DESCRIPTORS", "/no/such/folder")
    store = Store.at(str(deep / "queue.db"))
    try:
        listener = store.listen()
        assert listener.reachable is proc
        _quiet(listener)
        put(store)
        assert _readable(listener, 0.2)
        assert listener.drain()
    finally:
        store.close()


def test_sockets_of_the_dead_are_cleared_away(store: Store, run: Callable[..., Any]) -> None:
    process = run("store.listen(); print('here', flush=True); time.sleep(60)")
    assert process.stdout.readline()
    assert len(list(Path(store.folder.path).glob("*.sock"))) == 1
    process.kill()
    process.wait()
    wait_for(lambda: put(store) and not list(Path(store.folder.path).glob("*.sock")))


def test_an_idle_process_uses_almost_no_cpu(store: Store, run: Callable[..., Any]) -> None:
    put(store, *[row(in_ms=3_600_000) for _ in range(1000)])
    process = run("store.owner(); store.listen(); print('idle', flush=True); time.sleep(60)")
    assert process.stdout.readline()
    stat = Path(f"/proc/{process.pid}/stat")
    if not stat.exists():
        pytest.skip("no /proc here")

    def used() -> float:
        fields = stat.read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    start, since = used(), time.monotonic()
    wait_for(lambda: time.monotonic() - since > 3)
    assert (used() - start) / (time.monotonic() - since) < 0.01
