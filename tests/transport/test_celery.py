"""A real Celery worker on the embedded broker: ordinary tasks, remote control, deaths."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain
from conftest import ROOT, integrity, wait_for

from cfqueue.transport.store import Store

pytestmark = pytest.mark.worker
HERE = Path(__file__).parent


class Project:
    """The project of `celery_project` in a folder of its own, and workers on it."""

    def __init__(self, folder: Path) -> None:
        (folder / "results").mkdir()
        os.environ["CFQUEUE_TEST_FOLDER"] = str(folder)
        self.tasks: Any = importlib.reload(importlib.import_module("celery_project"))
        self.app = self.tasks.app
        self.path = str(folder / "queue.db")
        self.store = Store.at(self.path)
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []

    def worker(self, pool: str, *options: str) -> subprocess.Popen[bytes]:
        name = f"w{len(self.workers)}"
        log = (self.folder / f"{name}.log").open("wb")
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "celery_project",
            "worker",
            "-P",
            pool,
            "-n",
            f"{name}@here",
        ]
        process = subprocess.Popen(
            [*command, "-l", "INFO", *options],
            cwd=HERE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}"},
            start_new_session=True,
        )
        log.close()
        self.workers.append(process)
        return process

    def log(self) -> str:
        return "".join(file.read_text() for file in sorted(self.folder.glob("*.log")))

    def get(self, result: Any) -> Any:
        return result.get(timeout=20, interval=0.01)

    def close(self) -> None:
        for process in self.workers:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.app.close()
        self.store.close()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    project.close()


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_ordinary_tasks_and_remote_control(project: Project, pool: str) -> None:
    tasks, get = project.tasks, project.get
    worker = project.worker(pool, "-c", "2")
    assert get(tasks.add.delay(1, 2)) == 3
    assert get(tasks.flaky.delay()) == 2
    due = time.time() + 0.5
    assert 0 <= get(tasks.arrival.apply_async(countdown=0.5)) - due < 1.0
    import datetime as dt

    eta = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.3)
    assert get(tasks.arrival.apply_async(eta=eta)) >= eta.timestamp() - 0.001
    assert get(chain(tasks.add.s(1, 1), tasks.add.s(5)).apply_async()) == 7
    assert [get(r) for r in [tasks.relay.delay(n) for n in range(20)]] == list(range(20))
    for _ in range(2):
        inspect = project.app.control.inspect(timeout=5, limit=1)
        assert inspect.ping() == {"w0@here": {"ok": "pong"}}
        assert inspect.active() == {"w0@here": []}
        assert "celery_project.add" in inspect.registered()["w0@here"]
        assert inspect.stats()["w0@here"]["broker"]["transport"] == "cfqueue"
    if pool == "prefork":
        grown = project.app.control.pool_grow(1, reply=True, limit=1, timeout=5)
        assert grown == [{"w0@here": {"ok": "pool will grow"}}]
        wait_for(lambda: len(inspect.stats()["w0@here"]["pool"]["processes"]) == 3)
    project.app.control.shutdown()
    assert worker.wait(20) == 0
    assert project.store.leasing_owners() == set()
    assert project.store.length("tasks") == 0
    assert "Traceback" not in project.log(), project.log()


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_warm_stop_finishes_what_runs_and_gives_back_the_rest(project: Project, pool: str) -> None:
    worker = project.worker(pool, "-c", "1", "--prefetch-multiplier", "4")
    assert project.get(project.tasks.add.delay(1, 1)) == 2
    naps = [project.tasks.nap.delay(0.3) for _ in range(6)]
    wait_for(lambda: project.store.backlog("tasks").in_flight >= 3)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    done = [nap for nap in naps if nap.ready()]
    assert done
    assert project.store.length("tasks") == 6 - len(done)
    assert project.store.leasing_owners() == set()


def test_a_killed_workers_tasks_run_on_another_at_once(project: Project) -> None:
    first = project.worker("prefork", "-c", "2")
    assert project.get(project.tasks.add.delay(1, 1)) == 2
    naps = [project.tasks.nap.delay(0.2) for _ in range(6)]
    wait_for(lambda: project.store.backlog("tasks").in_flight >= 4)
    second = project.worker("threads", "-c", "2")
    wait_for(lambda: "ready." in (project.folder / "w1.log").read_text())
    os.killpg(first.pid, signal.SIGKILL)
    for nap in naps:
        project.get(nap)
    wait_for(lambda: project.store.backlog("tasks").in_flight == 0)
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 0
    assert project.store.length("tasks") == 0
    assert integrity(project.path) == "ok"


def test_children_that_are_replaced_all_the_time_publish_and_none_hangs(project: Project) -> None:
    worker = project.worker("prefork", "-c", "3", "--max-tasks-per-child", "2")
    results = [project.tasks.relay.delay(n) for n in range(60)]
    assert [project.get(r) for r in results] == list(range(60))
    wait_for(lambda: project.store.backlog("tasks") == type(project.store.backlog("x"))(0, 0, None, 0, 0, 0))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert integrity(project.path) == "ok"


def test_delayed_tasks_wait_in_the_broker_not_in_the_worker(project: Project) -> None:
    for n in range(300):
        project.tasks.add.apply_async((n, n), countdown=3600)
    worker = project.worker("solo")
    assert project.get(project.tasks.add.delay(1, 2)) == 3
    scheduled: Callable[[], Any] = project.app.control.inspect(timeout=5, limit=1).scheduled
    assert scheduled() == {"w0@here": []}
    assert project.store.length("tasks") == 300
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
