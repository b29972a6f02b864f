"""Which queues a worker serves, how much of them at once, and what commands do to it."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from .harness import Project, do, eventually
from .test_crashes import suspicion

pytestmark = pytest.mark.worker

SOURCE = """
cf = CFQueue(app)

@cf.queue("jobs", max_batch_timeout=0)
def jobs(batch):
    run(batch)

@cf.queue("mails", max_batch_timeout=0)
def mails(batch):
    run(batch)

@cf.queue("single", max_batch_size=2, max_batch_timeout=0, max_concurrency=1)
def single(batch):
    run(batch)

@cf.queue("double", max_batch_size=1, max_batch_timeout=0, max_concurrency=2)
def double(batch):
    run(batch)

@app.task(name="project.add", shared=False)
def add(n):
    record("task", n=n)

app.conf.task_routes = {"project.slow": {"queue": "slow"}}

@app.task(name="project.slow", shared=False)
def slow(n):
    record("slow", n=n)
"""

OURS, THEIRS = {"jobs", "mails"}, {"task", "slow"}


@pytest.fixture
def project(make_project: Any) -> Project:
    return make_project(SOURCE)


@pytest.mark.parametrize(
    ("options", "served"),
    [
        ({}, {"jobs", "mails", "task"}),
        ({"queues": "jobs"}, {"jobs"}),
        ({"queues": "celery"}, {"task"}),
        ({"queues": "celery,mails,slow"}, {"mails", "task", "slow"}),
        ({"exclude": "jobs"}, {"mails", "task"}),
    ],
    ids=["all", "only ours", "only theirs", "both", "without"],
)
def test_a_worker_serves_the_queues_that_were_selected(
    project: Project, options: dict[str, str], served: set[str]
) -> None:
    [job], [mail] = project.send("jobs", "j"), project.send("mails", "m")
    project.module.add.delay(1)
    project.module.slow.delay(1)
    with project.worker("threads", **options) as worker:

        def seen() -> set[str]:
            return {r["queue"] for r in project.records("end")} | {
                r["event"] for r in project.records() if r["event"] in THEIRS
            }

        eventually(lambda: seen() >= served)
        answers = eventually(lambda: project.module.app.control.inspect(timeout=5, limit=1).active_queues())
        assert {q["name"] for q in answers[f"{worker.name}@test"]}.isdisjoint(OURS), "ours are never Celery's"
        assert worker.stop() == 0
    assert seen() == served
    assert ("jobs" in served) == (project.queue("jobs").metrics().backlog_count == 0)
    assert bool(project.runs(job)) == ("jobs" in served)
    assert bool(project.runs(mail)) == ("mails" in served)


def most_at_once(project: Project, queue: str) -> int:
    """From the handlers' own records: how many runs overlapped."""
    points = [(r["at"], 1) for r in project.records("start", queue=queue)]
    points += [(r["at"], -1) for r in project.records("end", queue=queue)]
    running = most = 0
    for _, change in sorted(points):
        running += change
        most = max(most, running)
    return most


@pytest.mark.parametrize(("queue", "limit"), [("single", 1), ("double", 2)])
def test_max_concurrency_holds_across_workers(project: Project, queue: str, limit: int) -> None:
    with project.worker(concurrency=2), project.worker("threads", concurrency=2):
        for _ in range(4):
            project.send(queue, *(do(("sleep", 0.03)) for _ in range(6)))
        project.drained(queue)
    assert most_at_once(project, queue) == limit
    assert len({r["worker"] for r in project.records("start", queue=queue)}) >= 1


def test_max_concurrency_is_free_again_after_a_worker_died(project: Project) -> None:
    with project.worker(name="first", concurrency=1) as first:
        [message] = project.send("single", do(("gate", "go")))
        eventually(lambda: project.runs(message))
        first.kill()
    project.open_gate("go")
    with project.worker(name="second", concurrency=1):
        project.send("single", "next")
        project.drained("single")
    assert project.attempts(message) == [1, 1]


def test_ordinary_tasks_are_not_queued_behind_batches(project: Project) -> None:
    """The pool is given at most as many batches as it has slots; a slot that frees serves both."""
    with project.worker(concurrency=2):
        project.send("jobs", *(do(("sleep", 0.05), n=n) for n in range(60)))
        project.send("jobs", *(do(("sleep", 0.05), n=n) for n in range(60)))
        eventually(lambda: project.records("start", queue="jobs"))
        for n in range(10):
            project.module.add.delay(n)
        eventually(lambda: len(project.records("task")) == 10)
        left = project.queue("jobs").metrics()
        project.drained("jobs")
    assert left.backlog_count, "the tasks ran among the batches, not after them"


def test_revoking_a_batch_with_terminate_gives_its_messages_back_uncharged(project: Project) -> None:
    with project.worker(concurrency=1):
        [message] = project.send("jobs", do(("gate", "go")))
        run = eventually(lambda: project.runs(message))[0]["run"]
        project.module.app.control.revoke(run["batch"], terminate=True)
        eventually(lambda: len(project.runs(message)) == 2)
        project.open_gate("go")
        project.drained("jobs", "jobs-dlq")
    assert project.attempts(message) == [1, 1]


def test_an_idle_worker_hears_of_a_message_at_once_and_of_a_delayed_one_in_time(project: Project) -> None:
    with project.worker(concurrency=1):
        project.send("jobs", "warm up")
        project.drained("jobs")
        started = time.monotonic()
        [message] = project.send("jobs", "x")
        assert eventually(lambda: project.runs(message))[0]["run"]["at"] - started < 1
        started = time.monotonic()
        [message] = project.send("jobs", "x", delay_seconds=1)
        assert 0.99 <= eventually(lambda: project.runs(message))[0]["run"]["at"] - started < 3


def test_a_worker_without_queues_of_ours_stops_cleanly(project: Project, pool: str) -> None:
    with project.worker(pool, queues="celery") as worker:
        project.module.add.delay(1)
        eventually(lambda: project.records("task"))
        assert worker.stop() == 0
        assert "Traceback" not in worker.log()


def test_stopping_twice_is_a_cold_shutdown_that_loses_nothing(project: Project) -> None:
    with project.worker(concurrency=1) as worker:
        [message] = project.send("jobs", do(("gate", "never")))
        eventually(lambda: project.runs(message))
        worker.signal(signal.SIGTERM)
        eventually(lambda: "Warm shutdown" in worker.log())
        worker.signal(signal.SIGQUIT)
        worker.wait()
    found = suspicion(project, "jobs")
    assert [attempts for _, attempts in found.values()] == [1], worker.log()


def test_without_faults_every_message_runs_once_on_any_mix_of_workers(project: Project) -> None:
    with project.worker(concurrency=2), project.worker("threads", concurrency=2), project.worker("solo"):
        sent = [i for n in range(10) for i in project.send("jobs", *(do(n=n) for _ in range(100)))]
        project.drained("jobs", "jobs-dlq")
    seen = [m["id"] for r in project.records("end", queue="jobs") for m in r["messages"]]
    assert sorted(seen) == sorted(sent)


def test_slots_follow_the_autoscaler(project: Project) -> None:
    with project.worker(concurrency=2, arguments=["--autoscale", "2,1"]) as worker:
        project.send("jobs", *(do(("sleep", 0.01)) for _ in range(100)))
        project.drained("jobs")
        assert worker.stop() == 0
    assert sum(len(r["messages"]) for r in project.records("end", queue="jobs")) == 100
