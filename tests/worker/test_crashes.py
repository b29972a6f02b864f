"""What happens to messages when something dies: the table of the crash rules, on real processes."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psutil
import pytest

from .harness import Project, do, eventually

pytestmark = pytest.mark.worker

SOURCE = """
cf = CFQueue(app)

@cf.queue("jobs", max_batch_size=4, max_batch_timeout=1, max_retries=1)
def jobs(batch):
    run(batch)

@cf.queue("others", max_batch_size=4, max_batch_timeout=0)
def others(batch):
    run(batch)

@cf.queue("limited", max_batch_size=2, max_batch_timeout=1, max_retries=0, time_limit=1)
def limited(batch):
    run(batch)

@cf.queue("asked", max_batch_timeout=0, max_retries=0, soft_time_limit=1, time_limit=20)
def asked(batch):
    from celery.exceptions import SoftTimeLimitExceeded
    try:
        run(batch)
    except SoftTimeLimitExceeded:
        record("soft", messages=[m.id for m in batch])
        batch.ack_all()

@cf.queue("killer", max_batch_size=2, max_batch_timeout=1, max_retries=1)
def killer(batch):
    run(batch)
"""

#: A stopped owner is recognised after this many seconds.
STALL = 2.0


@pytest.fixture
def project(make_project: Any) -> Project:
    return make_project(SOURCE)


def letters(project: Project, queue: str) -> dict[str, Any]:
    return {m.id: m for m in project.queue(queue).peek(100)}


def suspicion(project: Project, queue: str) -> dict[str, tuple[int, int]]:
    """Suspicion and attempts of what waits."""
    return {m.id: (m.suspicion, m.attempts) for m in project.queue(queue).peek(100)}


@pytest.mark.parametrize("death", ["kill", "exit"])
def test_a_message_that_kills_its_child_takes_no_neighbour_with_it(project: Project, death: str) -> None:
    with project.worker(concurrency=2) as worker:
        innocent = project.send("others", do(("gate", "others")))[0]
        eventually(lambda: project.runs(innocent))
        bystander = project.runs(innocent)[0]["run"]["pid"]
        a, b, poison, c = project.send("jobs", "a", "b", do(death), "c")
        letter = eventually(lambda: letters(project, "jobs-dlq").get(poison))
        project.drained("jobs")
        project.open_gate("others")
        project.drained("others")
    assert letter.headers["cfq-reason"] == "crashed"
    assert letter.headers["cfq-failed-attempts"] == 2
    # Together once, then alone and uncharged, then charged: 1 + max_retries + 1 deaths.
    assert project.attempts(poison) == [1, 1, 2]
    assert [len(r["run"]["messages"]) for r in project.runs(poison)] == [4, 1, 1]
    for neighbour in (a, b, c):
        assert project.attempts(neighbour) == [1, 1]
        assert [len(r["run"]["messages"]) for r in project.runs(neighbour)] == [4, 1]
    together, alone = project.runs(a)
    assert alone["run"]["at"] - together["run"]["at"] < 5, "they run again at once"
    assert [r["run"]["pid"] for r in project.runs(innocent, "end")] == [bystander], (
        "other batches are untouched"
    )
    assert f"message {poison} of queue jobs" in worker.log()


def test_a_message_that_died_alone_waits_a_second_and_goes_on_uncharged_once_it_returns(
    project: Project,
) -> None:
    with project.worker(concurrency=1):
        [message] = project.send("jobs", do("first:kill"))
        project.drained("jobs")
    assert project.attempts(message) == [1, 2]
    first, second = (r["run"]["at"] for r in project.runs(message))
    assert second - first >= 1


def test_a_child_killed_from_outside_charges_nobody_in_company(project: Project) -> None:
    with project.worker(concurrency=1):
        ids = project.send("jobs", *(do(("gate", "go")) for _ in range(4)))
        pid = eventually(lambda: project.runs(ids[0]))[0]["run"]["pid"]
        project.open_gate("go")
        os.kill(pid, signal.SIGKILL)
        project.drained("jobs", "jobs-dlq")
    assert all(set(project.attempts(i)) == {1} for i in ids)


def test_the_hard_time_limit_ends_a_handler_that_hangs(project: Project) -> None:
    with project.worker(concurrency=2):
        hanging, fine = project.send("limited", do("hang"), "fine")
        letter = eventually(lambda: letters(project, "limited-dlq").get(hanging))
        project.drained("limited")
    assert letter.headers["cfq-reason"] == "crashed"
    assert project.attempts(hanging) == [1, 1]
    assert project.runs(fine, "end")
    assert project.attempts(fine)[-1] == 1


def test_the_soft_time_limit_is_raised_in_the_handler(project: Project) -> None:
    with project.worker(concurrency=1):
        [message] = project.send("asked", do("hang"))
        eventually(lambda: project.records("soft", messages=[message]))
        project.drained("asked", "asked-dlq")
    assert project.attempts(message) == [1]


@pytest.mark.parametrize("limited_pool", ["threads", "solo"])
def test_what_a_pool_cannot_do_is_said_at_start(project: Project, limited_pool: str) -> None:
    with project.worker(limited_pool) as worker:
        eventually(lambda: "cannot kill a handler that hangs" in worker.log())
        assert "time limits have no effect" in worker.log()


def test_a_killed_worker_gives_its_messages_back_within_a_second(project: Project, pool: str) -> None:
    with project.worker(pool, concurrency=1, name="first") as first:
        running = project.send("jobs", *(do(("gate", "first")) for _ in range(4)))
        eventually(lambda: project.runs(running[0]))
        held = project.send("jobs", "held")[0]
        with project.worker("prefork", concurrency=2, name="second"):
            project.open_gate("first")
            eventually(lambda: project.runs(held))
            project.drained("jobs")
            (project.folder / "gates" / "first").unlink()
            again = project.send("others", *(do(("gate", "others"), n=n) for n in range(4)))
            eventually(lambda: all(project.runs(i) for i in again))
            mine = [i for i in again if project.runs(i)[0]["run"]["worker"] == "first"]
            died = time.monotonic()
            first.kill()
            project.open_gate("others")
            project.drained("others", "others-dlq")
    for message in mine:
        runs = project.runs(message)
        assert [r["attempts"] for r in runs] == [1, 1], "uncharged"
        assert runs[1]["run"]["worker"] == "second"
        assert runs[1]["run"]["at"] - died < 5


def test_messages_of_a_dead_worker_come_back_with_more_suspicion_the_merely_held_ones_clean(
    project: Project,
) -> None:
    with project.worker(concurrency=1, name="first") as first:
        running = project.send("jobs", *(do(("gate", "never")) for _ in range(4)))
        eventually(lambda: project.runs(running[0]))
        waiting = project.send("jobs", "waits")[0]
        died = time.monotonic()
        first.kill()
    # Nobody consumes: a second worker of other queues is enough to find out.
    with project.worker(concurrency=1, name="second", queues="others"):
        eventually(lambda: len(suspicion(project, "jobs")) == 5)
        assert time.monotonic() - died < 10
        found = suspicion(project, "jobs")
    assert found == {**dict.fromkeys(running, (1, 1)), waiting: (0, 1)}


def test_messages_are_back_within_one_second_of_their_workers_death(project: Project) -> None:
    with project.worker(concurrency=1, name="first") as first, project.worker(concurrency=1, name="second"):
        ids = project.send("others", *(do(("gate", "go"), n=n) for n in range(8)))
        eventually(lambda: all(project.runs(i) for i in ids))
        lost = [i for i in ids if project.runs(i)[0]["run"]["worker"] == "first"]
        taken = [i for i in ids if i not in lost]
        assert lost
        assert taken
        died = time.monotonic()
        os.kill(first.pid, signal.SIGKILL)
        project.open_gate("go")
        eventually(lambda: all(len(project.runs(i)) > 1 for i in lost))
        project.drained("others", "others-dlq")
    back = [r["run"]["at"] - died for i in lost for r in project.runs(i) if r["run"]["worker"] == "second"]
    assert max(back) <= 1.0 + 0.5, "within a second, and half a one for a busy machine"
    assert all(set(project.attempts(i)) == {1} for i in ids)
    assert not letters(project, "others-dlq")


def test_a_message_that_kills_its_worker_every_time_ends_as_crashed(project: Project) -> None:
    """2 + max_retries + 1 deaths of a worker: in company, as a suspect, and then alone, charged each time."""
    poison, neighbour = project.send("killer", do("kill-parent"), "innocent")
    deaths = 0
    while not letters(project, "killer-dlq").get(poison):
        assert deaths <= 4, project.attempts(poison)
        worker = project.worker("threads", concurrency=2, queues="killer", name=f"w{deaths}").start()
        try:
            eventually(lambda w=worker: not w.alive or letters(project, "killer-dlq").get(poison))
            deaths += not worker.alive
        finally:
            worker.end()
    with project.worker("threads", queues="killer", name="last"):
        project.drained("killer")
    letter = letters(project, "killer-dlq")[poison]
    assert deaths == 4
    assert letter.headers["cfq-reason"] == "crashed"
    assert project.attempts(poison) == [1, 1, 1, 2]
    assert set(project.attempts(neighbour)) == {1}
    assert project.runs(neighbour, "end")
    assert len(project.attempts(neighbour)) <= 3, "at most twice more than without the poison"


def test_a_stopped_workers_late_result_changes_nothing(project: Project) -> None:
    environment = {"CFQUEUE_STALLED_OWNER_SECONDS": str(STALL)}
    with (
        project.worker("threads", concurrency=1, name="first", environment=environment) as first,
        project.worker(
            "threads", concurrency=1, name="second", queues="others", environment=environment
        ) as second,
    ):
        ids = project.send("jobs", *(do(("gate", "go"), "first:raise") for _ in range(4)))
        eventually(lambda: project.runs(ids[0]))
        assert second.alive
        first.signal_group(signal.SIGSTOP)
        eventually(lambda: all(found == (1, 1) for found in suspicion(project, "jobs").values())
                   and len(suspicion(project, "jobs")) == 4)  # fmt: skip
        project.open_gate("go")
        with project.worker("threads", concurrency=1, name="third", queues="jobs", environment=environment):
            project.drained("jobs", "jobs-dlq")
            first.signal_group(signal.SIGCONT)
            eventually(lambda: "too late" in first.log())
            project.drained("jobs", "jobs-dlq")
    for message in ids:
        runs = [(r["run"]["worker"], r["attempts"]) for r in project.runs(message)]
        assert runs[0] == ("first", 1)
        assert runs[1:] == [("third", 1), ("third", 2)]
    assert "moved message" not in first.log()


# Shutdown


def test_a_warm_shutdown_finishes_what_runs_and_gives_back_the_rest(project: Project, pool: str) -> None:
    with project.worker(pool, concurrency=1) as worker:
        running = project.send("jobs", *(do(("gate", "go")) for _ in range(4)))
        eventually(lambda: project.runs(running[0]))
        rest = project.send("jobs", *(do(n=n) for n in range(20)))
        project.send("others", "x")
        worker.signal(signal.SIGTERM)
        eventually(lambda: "Warm shutdown" in worker.log() or pool == "solo")
        project.open_gate("go")
        assert worker.wait() == 0
    assert [project.attempts(i) for i in running] == [[1]] * 4
    assert all(project.runs(i, "end") for i in running)
    waiting = suspicion(project, "jobs")
    assert all(i in waiting or project.runs(i, "end") for i in rest)
    assert set(waiting) <= set(rest)
    assert set(waiting.values()) <= {(0, 1)}, "uncharged and clean"
    metrics = project.queue("jobs").metrics()
    assert (metrics.in_flight_count, metrics.delayed_count) == (0, 0)
    with project.worker(pool, name="next"):
        project.drained("jobs", "jobs-dlq", "others")
    assert all(project.attempts(i) == [1] for i in rest)


def test_a_cold_shutdown_gives_back_what_ran(project: Project) -> None:
    with project.worker(concurrency=2) as worker:
        ids = project.send("jobs", *(do(("gate", "never")) for _ in range(8)))
        eventually(lambda: project.runs(ids[7]))
        children = worker.children()
        worker.signal(signal.SIGQUIT)
        worker.wait()
        eventually(lambda: not any(psutil.pid_exists(pid) for pid in children))
    found = suspicion(project, "jobs")
    assert set(found) == set(ids), worker.log()
    assert {attempts for _, attempts in found.values()} == {1}, "uncharged"
    assert not letters(project, "jobs-dlq")


def test_children_are_replaced_after_their_number_of_tasks(project: Project) -> None:
    with project.worker(concurrency=1, arguments=["--max-tasks-per-child", "2"]):
        for n in range(5):
            [message] = project.send("others", n)
            eventually(lambda m=message: project.runs(m, "end"))
        project.drained("others")
    pids = [r["pid"] for r in project.records("end", queue="others")]
    assert len(pids) == 5
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 1]
