"""Beside a Celery broker without an event loop (kombu's ``filesystem`` here): queues work all the same."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
from celery import Celery

from .harness import HEAD, Project, do, eventually

pytestmark = pytest.mark.worker

SOURCE = """
app.conf.broker_transport_options = json.loads(os.environ["OPTIONS"])
app.conf.cfqueue_broker_url = os.environ["OURS"]
cf = CFQueue(app)

@cf.queue("jobs", max_batch_size=4, max_batch_timeout=1, max_retries=1)
def jobs(batch):
    run(batch)

@app.task(name="project.add", shared=False)
def add(n):
    record("task", n=n)
"""


@pytest.fixture
def project(make_project: Any, tmp_path: Any) -> Project:
    options = {f"data_folder_{way}": str(tmp_path / "celery") for way in ("in", "out")}
    options["control_folder"] = str(tmp_path / "control")
    for folder in ("celery", "control"):
        (tmp_path / folder).mkdir()
    environment = {
        "SCENE_BROKER": "filesystem://",
        "OURS": f"cfqueue+sqlite:///{tmp_path / 'p0' / 'q.db'}",
        "OPTIONS": json.dumps(options),
    }
    return make_project(SOURCE, head="import json\n" + HEAD.replace("from __future__ import annotations\n", ""),
                        environment=environment)  # fmt: skip


def test_batches_and_tasks_run_beside_each_other(project: Project, pool: str) -> None:
    ids = project.send("jobs", "a", do("first:retry"), "c", "d")
    with project.worker(pool) as worker:
        project.python("import project; [project.add.delay(n) for n in range(3)]")
        project.drained("jobs", "jobs-dlq")
        eventually(lambda: len(project.records("task")) == 3)
        running = project.send("jobs", *(do(("gate", "go")) for _ in range(4)))
        eventually(lambda: project.runs(running[0]))
        worker.signal(signal.SIGTERM)
        eventually(lambda: "Warm shutdown" in worker.log())
        project.open_gate("go")
        assert worker.wait() == 0
    assert [project.attempts(i) for i in ids] == [[1], [1, 2], [1], [1]]
    assert all(project.runs(i, "end") for i in running), "a warm shutdown finishes what runs"
    assert project.empty("jobs")


def test_a_plain_programs_message_is_passed_on_from_celerys_queue(project: Project) -> None:
    """It came to Celery's default queue, on another broker than ours (docs/decisions/0007)."""
    foreign = Celery("foreign", broker="filesystem://", set_as_current=False)
    foreign.conf.broker_transport_options = json.loads(project.more["OPTIONS"])
    with project.worker(concurrency=1):
        result = foreign.send_task("cfqueue.queue.jobs", [do("first:raise")], priority=3)
        eventually(lambda: project.attempts(result.id) == [1, 2])
        project.drained("jobs", "jobs-dlq")
    foreign.close()
    assert {r["run"]["queue"] for r in project.runs(result.id)} == {"jobs"}


def test_a_dead_child_is_noticed(project: Project) -> None:
    with project.worker(concurrency=1):
        poison, neighbour = project.send("jobs", do("first:kill"), "b")
        project.drained("jobs", "jobs-dlq")
    assert project.attempts(poison) == [1, 1, 2]
    assert project.attempts(neighbour) == [1, 1]


def test_a_child_killed_from_outside_is_noticed(project: Project) -> None:
    with project.worker(concurrency=1):
        [message] = project.send("jobs", do(("gate", "go")))
        pid = eventually(lambda: project.runs(message))[0]["run"]["pid"]
        os.kill(pid, signal.SIGKILL)
        project.open_gate("go")
        project.drained("jobs", "jobs-dlq")
    assert project.attempts(message) == [1, 2]
