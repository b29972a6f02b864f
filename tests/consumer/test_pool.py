"""The bridge to Celery's pool: what it is given, how a batch ends there, what prefork's flush may do."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.pool import ApplyResult
from celery.worker import state

from cfqueue import CFQueue
from cfqueue.consumer.batch import Batch
from cfqueue.consumer.jobs import Jobs
from cfqueue.messages import ConsumerSettings

from .stage import Stage, delivery

OnStage = Callable[..., Stage]


def nothing(batch: Any) -> None:
    """A handler that acks."""


@pytest.fixture
def stage(cf: CFQueue, on_stage: OnStage) -> Stage:
    cf.queue("jobs", max_batch_size=2, max_batch_timeout=0, max_retries=0)(nothing)
    return on_stage(slots=2)


def batch(*bodies: Any) -> Batch:
    return Batch("b", ConsumerSettings("jobs"), [delivery(body) for body in bodies])


# What Celery sees


def test_a_batch_is_one_request_for_celery_and_its_messages_are_counted(cf: CFQueue, stage: Stage) -> None:
    ids = cf.queues["jobs"].send_batch([{"body": 1}, {"body": 2}]).ids
    [job] = stage.given()
    [request] = state.reserved_requests
    assert (request.id, request.name) == (job.batch_id, "cfqueue.queue.jobs")
    assert request not in state.active_requests
    job.accept()
    assert request in state.active_requests
    info = request.info()
    assert (info["queue"], info["size"], info["args"]) == ("jobs", 2, [ids])
    assert state.total_count["cfqueue.queue.jobs"] == 2
    job._pool.jobs.remove(job)
    job.options["callback"](job._target(*job._args))
    assert not state.reserved_requests
    assert not state.active_requests


def test_what_the_pool_does_not_take_is_given_back(
    cf: CFQueue, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.pool.refuses = OSError("the pipe is gone")
    cf.queues["jobs"].send(1)
    stage.turn()
    stage.pool.refuses = None
    stage.drained("jobs")
    assert "the pool did not take batch" in caplog.text
    assert stage.letters() == {}


def test_a_batch_that_the_pool_reports_twice_ends_once(cf: CFQueue, stage: Stage) -> None:
    """The hard time limit, then the exit of the process: one death."""
    cf.queues["jobs"].send_batch([{"body": 1}, {"body": 2}])
    [job] = stage.given()
    stage.pool.jobs.append(job)
    job.die()
    job.die()
    stage.drained("jobs")
    assert stage.letters() == {}
    assert stage.service.info()["outcomes"]["acked"] == 2


def test_a_pool_that_is_closing_takes_nothing(cf: CFQueue, stage: Stage) -> None:
    stage.bridge.close()
    assert stage.bridge.free == 0


def test_slots_follow_the_size_of_the_pool(stage: Stage) -> None:
    assert (stage.bridge.slots, stage.bridge.free) == (2, 2)
    stage.pool.num_processes = 5
    assert stage.bridge.free == 5


def test_after_a_reconnect_the_new_loop_is_used(cf: CFQueue, stage: Stage) -> None:
    [reader] = stage.hub.readers
    stage.hub.readers.clear()
    stage.bridge.attach(stage.pool, stage.hub)
    assert list(stage.hub.readers) == [reader]
    cf.queues["jobs"].send(1)
    stage.drained("jobs")


# Time limits


@pytest.mark.parametrize(
    ("own", "workers", "expected"),
    [
        ({}, {}, (900, None)),
        ({}, {"time_limit": 20, "soft_time_limit": 10}, (20, 10)),
        ({"time_limit": 7}, {"time_limit": 20, "soft_time_limit": 10}, (7, 10)),
        ({"time_limit": 7, "soft_time_limit": 3}, {"time_limit": 20, "soft_time_limit": 10}, (7, 3)),
        ({"time_limit": 7, "soft_time_limit": 3}, {}, (7, 3)),
    ],
    ids=["the default", "the worker's", "one each", "the handler's", "the handler's alone"],
)
def test_the_workers_time_limits_apply_where_the_handler_names_none(
    cf: CFQueue, on_stage: OnStage, own: Any, workers: Any, expected: Any
) -> None:
    cf.queue("jobs", max_batch_timeout=0, **own)(nothing)
    stage = on_stage(**workers)
    cf.queues["jobs"].send(1)
    [job] = stage.given()
    assert (job.options["timeout"], job.options["soft_timeout"]) == expected


# Prefork's flush


class Prefork:
    """Of prefork what matters here: its cache of jobs, and what its ``flush`` does to those not accepted."""

    def __init__(self) -> None:
        self.cache: dict[int, ApplyResult] = {}
        self._pool = SimpleNamespace(_cache=self.cache, _state=0)

    def job(self, *, written: bool = False, accepted: bool = False) -> ApplyResult:
        job = ApplyResult(self.cache, None)
        job._write_to = object() if written else None
        job._accepted = accepted
        return job

    def flush(self) -> None:
        for job in list(self.cache.values()):
            if not job._accepted:
                job.discard()


@pytest.fixture
def guarded() -> tuple[Prefork, Jobs, list[Batch]]:
    prefork, jobs, dropped = Prefork(), Jobs(), []

    def drop(batch: Batch) -> None:
        jobs.forget(batch)
        dropped.append(batch)

    jobs.guard(prefork, drop)
    return prefork, jobs, dropped


Guarded = tuple[Prefork, Jobs, list[Batch]]


def test_a_batch_that_was_written_to_a_process_survives_a_flush(guarded: Guarded) -> None:
    prefork, jobs, dropped = guarded
    job = prefork.job(written=True)
    jobs.add(batch(1), job)
    prefork.flush()
    assert job._job in prefork.cache
    assert dropped == []


def test_a_batch_that_a_flush_dropped_is_reported_once(guarded: Guarded) -> None:
    prefork, jobs, dropped = guarded
    waiting = batch(1)
    jobs.add(waiting, prefork.job())
    prefork.flush()
    prefork.flush()
    assert dropped == [waiting]


def test_a_batch_that_has_ended_is_not_reported(guarded: Guarded) -> None:
    prefork, jobs, dropped = guarded
    ended, forgotten = prefork.job(accepted=True), batch(2)
    jobs.add(batch(1), ended)
    ended._set(0, (True, None))  # its callback is on its way
    jobs.add(forgotten, prefork.job())
    jobs.forget(forgotten)
    prefork.flush()
    assert dropped == []


def test_other_tasks_jobs_are_flushed_as_ever(guarded: Guarded) -> None:
    prefork, _, dropped = guarded
    theirs = prefork.job(written=True)
    prefork.flush()
    assert theirs._job not in prefork.cache
    assert dropped == []


def test_a_pool_without_a_cache_is_left_as_it_is() -> None:
    pool = SimpleNamespace(flush=lambda: None, _pool=None)
    before = pool.flush
    Jobs().guard(pool, lambda batch: None)
    assert pool.flush is before


def test_a_dropped_batch_is_refused_and_its_messages_are_given_back(cf: CFQueue, stage: Stage) -> None:
    cf.queues["jobs"].send(1)
    stage.given()
    [running] = stage.bridge.running.values()
    stage.bridge._dropped(running)
    stage.bridge._dropped(running)
    stage.pool.jobs.clear()
    stage.drained("jobs")
    assert stage.letters() == {}
    assert stage.service.info()["outcomes"]["acked"] == 1
