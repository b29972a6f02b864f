"""Sending from everywhere: threads, forked processes, a running event loop, beside a locked file."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import fcntl
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cfqueue.errors import BrokerUnavailable

from .harness import Project

SOURCE = """
cf = CFQueue(app)

@cf.queue("jobs", max_batch_size=100, max_batch_timeout=0)
def jobs(batch):
    run(batch)
"""


@pytest.fixture
def project(make_project: Any) -> Project:
    return make_project(SOURCE)


@contextlib.contextmanager
def locked(project: Project) -> Iterator[None]:
    """Some other program holds the write lock."""
    project.queue("jobs").metrics()  # the file exists from now on
    with (project.database.parent / "q.db.d" / "write.lock").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def count(project: Project) -> int:
    return project.queue("jobs").metrics().backlog_count or 0


def test_threads_can_share_a_queue(project: Project) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda n: project.queue("jobs").send(n).id, range(200)))
    assert len(set(ids)) == 200
    assert count(project) == 200


def test_forked_processes_can_send_after_their_parent_has_sent(project: Project) -> None:
    """As under a web server that loads the application and then forks."""
    project.python(
        """
        import os, threading
        from project import jobs, cf
        jobs.send("parent")
        stop = threading.Event()
        thread = threading.Thread(target=lambda: [jobs.send("thread") for _ in iter(stop.is_set, True)])
        thread.start()
        children = []
        for _ in range(6):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    for n in range(5):
                        jobs.send({"child": n})
                    code = 0
                finally:
                    os._exit(code)
            children.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        stop.set()
        thread.join()
        jobs.send("parent again")
        assert codes == [0] * 6, codes
        """
    )
    bodies = [m.body for m in project.queue("jobs").peek(100)]
    assert count(project) >= 32
    assert bodies[0] == "parent"


def test_a_running_loop_is_not_blocked_by_asend(project: Project) -> None:
    async def scene() -> tuple[int, str]:
        ticks = 0
        with locked(project):
            sending = asyncio.create_task(project.queue("jobs").asend("x"))
            deadline = time.monotonic() + 0.3
            while time.monotonic() < deadline:
                await asyncio.sleep(0.01)
                ticks += 1
            assert not sending.done()
        result = await sending
        batch = await project.queue("jobs").asend_batch([{"body": 1}, {"body": 2}])
        same = await project.queue("jobs").send("y")  # Cloudflare's code awaits send() itself
        assert len(batch.ids) == 2
        return ticks, same.id + result.id

    ticks, ids = asyncio.run(scene())
    assert ticks >= 5
    assert len(ids) == 64
    assert count(project) == 4


def test_a_locked_file_is_an_error_when_the_timeout_is_over_and_nothing_is_stored(project: Project) -> None:
    started = time.monotonic()
    with locked(project), pytest.raises(BrokerUnavailable):
        project.queue("jobs").send("x", timeout=0.2)
    assert 0.2 <= time.monotonic() - started < 5
    assert count(project) == 0
    project.queue("jobs").send("y", timeout=5)
    assert count(project) == 1


def test_a_file_locked_by_a_foreign_program_is_an_error_too(project: Project) -> None:
    project.queue("jobs").send("first")
    other = sqlite3.connect(project.database, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BrokerUnavailable):
            project.queue("jobs").send_batch([{"body": 1}, {"body": 2}], timeout=0.2)
        other.execute("ROLLBACK")
    finally:
        other.close()
    assert count(project) == 1


def test_what_send_returned_has_survived_the_death_of_the_process(project: Project) -> None:
    out = project.python(
        """
        import os
        from project import jobs
        for n in range(20):
            print(jobs.send(n).id, flush=True)
        os.kill(os.getpid(), 0)
        os._exit(0)
        """
    )
    assert [m.id for m in project.queue("jobs").peek(100)] == out.split()


@pytest.mark.worker
def test_messages_of_all_content_types_cross_from_any_producer_to_the_worker(project: Project) -> None:
    sent = project.send("jobs", *range(300 // 3))
    project.send("jobs", *range(100, 200))
    with project.worker(concurrency=1):
        project.drained("jobs")
    seen = [m["body"] for r in project.records("end", queue="jobs") for m in r["messages"]]
    assert sorted(seen) == list(range(200))
    assert len(sent) == 100


def test_the_result_knows_what_waits(project: Project) -> None:
    result = project.queue("jobs").send({"a": 1})
    metrics = result.metadata.metrics
    assert (metrics.backlog_count, metrics.backlog_bytes, metrics.delayed_count) == (1, 7, 0)
    assert metrics.oldest_message_timestamp is not None
    assert metrics.backlogCount == 1


@pytest.mark.filterwarnings("error")
def test_peek_shows_and_purge_removes(project: Project) -> None:
    ids = project.send("jobs", "a", "b")
    late = project.queue("jobs").send("c", delay_seconds=100).id
    assert [m.id for m in project.queue("jobs").peek(1)] == ids[:1]
    assert [m.attempts for m in project.queue("jobs").peek()] == [1, 1, 1]
    assert project.queue("jobs").purge() == 3
    assert late not in [m.id for m in project.queue("jobs").peek()]
    assert project.empty("jobs")
