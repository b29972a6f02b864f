"""Turn by turn: who may begin, who has to wait, and what a stopping worker does with what it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from cfqueue import CFQueue
from cfqueue.brokers.base import GiveBack
from cfqueue.consumer.batch import Report
from cfqueue.transport.store import Store

from .stage import Job, Stage

OnStage = Callable[..., Stage]
Later = Callable[[float], None]


def nothing(batch: Any) -> None:
    """A handler that acks."""


def send(cf: CFQueue, *bodies: Any, queue: str = "jobs", **options: Any) -> list[str]:
    return [cf.queues[queue].send(body, **options).id for body in bodies]


def sizes(jobs: list[Job]) -> list[int]:
    return [len(job.ids) for job in jobs]


def suspect(cf: CFQueue, folder: Path, ids: list[str], suspicion: int) -> None:
    """As if these had come back from workers that died."""
    store = Store.at(str(folder / "q.db"))
    for one in ids:
        store.write(
            lambda c, one=one: c.execute(
                "UPDATE cfqueue_messages SET suspicion = ? WHERE message_id = ?", (suspicion, one)
            )
        )


def wanting() -> list[Any]:
    return [request for request in state.reserved_requests if request.id == "waiting for a slot"]


# Batches


def test_a_full_batch_begins_at_once_and_the_rest_is_held_until_its_time(
    cf: CFQueue, on_stage: OnStage, later: Later
) -> None:
    cf.queue("jobs", max_batch_size=4, max_batch_timeout=5)(nothing)
    stage = on_stage(slots=3)
    send(cf, *range(6))
    assert sizes(stage.given()) == [4]
    stage.until(lambda: len(stage.lines["jobs"].batcher) == 2, running=False)
    assert sizes(stage.jobs) == [4]
    later(5.1)
    assert sizes(stage.given(2)) == [4, 2]


def test_a_held_batch_is_filled_by_what_comes(cf: CFQueue, on_stage: OnStage) -> None:
    cf.queue("jobs", max_batch_size=3, max_batch_timeout=60)(nothing)
    stage = on_stage()
    first = send(cf, "a")
    stage.until(lambda: len(stage.lines["jobs"].batcher) == 1, running=False)
    rest = send(cf, "b", "c")
    assert [job.ids for job in stage.given()] == [first + rest]


def test_no_more_batches_are_taken_than_there_are_slots(cf: CFQueue, on_stage: OnStage) -> None:
    cf.queue("jobs", max_batch_size=2, max_batch_timeout=0)(nothing)
    stage = on_stage(slots=2)
    send(cf, *range(10))
    stage.given(2)
    for _ in range(5):
        stage.turn()
    assert sizes(stage.jobs) == [2, 2]
    assert stage.counts() == (6, 0, 4), "the rest stays at the broker, for others"


def test_queues_take_turns(cf: CFQueue, on_stage: OnStage) -> None:
    for name in ("aa", "bb", "cc"):
        cf.queue(name, max_batch_size=1, max_batch_timeout=0)(nothing)
    stage = on_stage()
    for name in ("aa", "bb", "cc"):
        send(cf, *range(3), queue=name)
    order = []
    for _ in range(9):
        [job] = stage.given()
        order.append(next(iter(stage.bridge.running.values())).queue)
        job.run()
        stage.turn()
    assert sorted(order[:3]) == sorted(order[3:6]) == sorted(order[6:]) == ["aa", "bb", "cc"]


def test_a_delayed_message_runs_when_it_is_due(cf: CFQueue, on_stage: OnStage, later: Later) -> None:
    cf.queue("jobs", max_batch_timeout=0)(nothing)
    stage = on_stage()
    send(cf, "x", delay_seconds=30)
    again = None
    for _ in range(5):
        again = stage.turn()
    assert stage.jobs == []
    assert again is not None
    later(31)
    assert sizes(stage.given()) == [1]


# max_concurrency


def test_a_held_batch_that_may_not_begin_goes_back_to_be_first_in_line(
    cf: CFQueue, on_stage: OnStage, later: Later
) -> None:
    cf.queue("jobs", max_batch_size=3, max_batch_timeout=1, max_concurrency=1)(nothing)
    one, other = on_stage(), on_stage()
    held = send(cf, "held")
    one.until(lambda: len(one.lines["jobs"].batcher) == 1, running=False)
    send(cf, *range(9))
    other.dispatcher.readable(other.dispatcher.intake.fileno())
    [ahead] = other.given()
    later(1.1)
    one.until(lambda: not one.lines["jobs"].batcher, running=False)
    one.until(lambda: one.counts() == (7, 0, 3), running=False)
    assert one.jobs == []
    ahead.run()
    [following] = other.given()
    assert following.ids[:1] == held


def test_a_queue_with_max_concurrency_that_is_empty_is_not_paused(cf: CFQueue, on_stage: OnStage) -> None:
    cf.queue("jobs", max_batch_size=1, max_batch_timeout=0, max_concurrency=1)(nothing)
    stage = on_stage(slots=2)
    for body in range(5):
        send(cf, body)
        stage.given()[0].run()
        for _ in range(3):
            stage.turn()
        assert stage.lines["jobs"].not_before == 0.0


def test_a_queue_at_its_max_concurrency_is_paused(cf: CFQueue, on_stage: OnStage, later: Later) -> None:
    cf.queue("jobs", max_batch_size=1, max_batch_timeout=0, max_concurrency=1)(nothing)
    stage = on_stage(slots=2)
    send(cf, 1, 2)
    [job] = stage.given()
    stage.until(lambda: stage.lines["jobs"].not_before > 0, running=False)
    asked: list[Any] = []
    turn = stage.dispatcher.intake.turn
    stage.dispatcher.intake.turn = lambda moves: (asked.append(moves), turn(moves))[1]  # type: ignore[method-assign]
    again = stage.turn()
    assert asked == [], "it does not ask over and over"
    assert again is not None
    job.run()
    later(0.5)
    stage.drained("jobs")


def test_a_limit_on_one_queue_does_not_stop_another(cf: CFQueue, on_stage: OnStage) -> None:
    cf.queue("slow", max_batch_size=1, max_batch_timeout=0, max_concurrency=1)(nothing)
    cf.queue("jobs", max_batch_size=1, max_batch_timeout=0)(nothing)
    stage = on_stage(slots=3)
    send(cf, 1, 2, 3, queue="slow")
    send(cf, 1, 2)
    stage.given(3)
    assert sorted(batch.queue for batch in stage.bridge.running.values()) == ["jobs", "jobs", "slow"]


# Suspects


def test_suspects_run_by_the_eighth_and_the_doubly_suspected_one_at_a_time(
    cf: CFQueue, on_stage: OnStage, later: Later, tmp_path: Path
) -> None:
    cf.queue("jobs", max_batch_size=16, max_batch_timeout=0)(nothing)
    stage = on_stage(slots=8)
    ids = send(cf, *range(6))
    suspect(cf, tmp_path, ids[:4], 1)
    suspect(cf, tmp_path, ids[4:], 2)
    later(1)
    stage.until(lambda: len(stage.jobs) >= 3, running=False)
    later(1)
    for _ in range(10):
        stage.turn()
    assert sorted(sizes(stage.jobs)) == [1, 2, 2], "one in the lane, the other waits for it"
    [lane] = [job for job in stage.jobs if len(job.ids) == 1]
    lane.run()
    later(1)
    stage.until(lambda: any(len(job.ids) == 1 for job in stage.jobs), running=False)
    stage.drained("jobs")


def test_the_lane_is_one_for_all_queues_and_free_again_after_a_crash(
    cf: CFQueue, on_stage: OnStage, later: Later, tmp_path: Path
) -> None:
    for name in ("aa", "bb"):
        cf.queue(name, max_batch_timeout=0, max_retries=0)(nothing)
    stage = on_stage(slots=4)
    suspect(cf, tmp_path, send(cf, 1, queue="aa") + send(cf, 1, queue="bb"), 2)
    later(1)
    [first] = stage.given()
    later(1)
    for _ in range(5):
        stage.turn()
    assert stage.jobs == [first]
    first.die()
    later(1)
    [second] = stage.given()
    assert second.ids != first.ids


def test_the_lane_is_free_again_when_its_message_was_not_admitted(
    cf: CFQueue, on_stage: OnStage, later: Later, tmp_path: Path
) -> None:
    cf.queue("jobs", max_batch_timeout=0)(nothing)
    stage = on_stage()
    [gone, kept] = send(cf, 1, 2)
    suspect(cf, tmp_path, [gone, kept], 2)
    state.revoked.add(gone)
    later(1)
    stage.until(lambda: stage.jobs and stage.jobs[0].ids == [kept], running=False)


def test_suspects_of_a_queue_with_max_concurrency_run_at_once(
    cf: CFQueue, on_stage: OnStage, later: Later, tmp_path: Path
) -> None:
    cf.queue("jobs", max_batch_timeout=0, max_concurrency=1)(nothing)
    stage = on_stage()
    suspect(cf, tmp_path, send(cf, 1), 1)
    later(1)
    for _ in range(5):
        stage.turn()
    assert sizes(stage.jobs) == [1]


# The autoscaler


def test_a_line_without_a_slot_shows_the_autoscaler_one_request_that_goes_away(
    cf: CFQueue, on_stage: OnStage
) -> None:
    cf.queue("jobs", max_batch_size=1, max_batch_timeout=0)(nothing)
    stage = on_stage(slots=1, autoscaler=SimpleNamespace(maybe_scale=list))
    send(cf, 1, 2, 3)
    stage.given()
    for _ in range(4):
        stage.turn()
    assert len(wanting()) == 1
    assert wanting()[0].info()["queue"] == "jobs"
    stage.pool.num_processes = 4
    stage.given(3)
    stage.turn()
    assert wanting() == []
    assert "waiting for a slot" not in state.requests


def test_an_idle_queue_and_a_closing_worker_want_no_slot(cf: CFQueue, on_stage: OnStage) -> None:
    cf.queue("jobs", max_batch_size=1, max_batch_timeout=0)(nothing)
    stage = on_stage(slots=1, autoscaler=SimpleNamespace(maybe_scale=list))
    for _ in range(3):
        stage.turn()
    assert wanting() == []
    send(cf, 1, 2)
    stage.given()
    stage.turn()
    assert len(wanting()) == 1
    stage.service.close()
    stage.turn()
    stage.turn()
    assert wanting() == []


def test_without_an_autoscaler_nothing_is_shown(cf: CFQueue, on_stage: OnStage) -> None:
    cf.queue("jobs", max_batch_size=1, max_batch_timeout=0)(nothing)
    stage = on_stage(slots=1)
    send(cf, 1, 2, 3)
    stage.given()
    stage.turn()
    assert wanting() == []


def test_a_full_pool_is_looked_at_again_because_it_may_grow(cf: CFQueue, on_stage: OnStage) -> None:
    cf.queue("jobs", max_batch_size=1, max_batch_timeout=0)(nothing)
    stage = on_stage(slots=1)
    send(cf, 1, 2)
    stage.given()
    assert stage.turn() is not None
    stage.pool.num_processes = 2
    assert len(stage.given(2)) == 2


# Stopping


def test_a_stopping_worker_gives_back_what_it_holds_and_finishes_what_runs(
    cf: CFQueue, on_stage: OnStage
) -> None:
    cf.queue("jobs", max_batch_size=2, max_batch_timeout=60)(nothing)
    stage = on_stage(slots=2)
    ids = send(cf, *range(3))
    [job] = stage.given()
    stage.until(lambda: len(stage.lines["jobs"].batcher) == 1, running=False)
    stage.service.close()
    stage.turn()
    assert stage.counts() == (1, 0, 2)
    send(cf, "more")
    for _ in range(3):
        stage.turn()
    assert stage.jobs == [job]
    job.run()
    stage.turn()
    assert stage.counts() == (2, 0, 0)
    assert cf.queues["jobs"].peek()[0].id == ids[2]
    assert cf.queues["jobs"].peek()[0].attempts == 1


def test_what_never_reported_is_given_back_uncharged_when_the_pool_has_ended(
    cf: CFQueue, on_stage: OnStage
) -> None:
    cf.queue("jobs", max_batch_size=5, max_batch_timeout=0)(nothing)
    stage = on_stage()
    send(cf, *range(3))
    stage.given()
    stage.service.close()
    stage.turn()
    told: list[bool] = []
    stage.dispatcher.when_settled(lambda: told.append(True))
    stage.dispatcher.abandon()
    stage.turn()
    assert told
    assert stage.counts() == (3, 0, 0)
    assert {message.attempts for message in cf.queues["jobs"].peek()} == {1}


@pytest.mark.parametrize("lost", ["killed", "refused"])
def test_a_batch_that_is_killed_while_the_pool_closes_is_given_back_uncharged(
    cf: CFQueue, on_stage: OnStage, lost: str
) -> None:
    cf.queue("jobs", max_batch_timeout=0, max_retries=0)(nothing)
    stage = on_stage()
    send(cf, 1)
    [job] = stage.given()
    stage.service.close()
    stage.turn()
    if lost == "killed":
        job.die()
    else:
        job.end(Report(None, refused="the worker that held these messages has died"))
    stage.turn()
    assert stage.counts() in {(0, 1, 0), (1, 0, 0)}
    assert stage.letters() == {}
    assert [m.attempts for m in cf.queues["jobs"].peek()] == [1]


def test_a_begin_that_lost_a_message_goes_on_with_the_others(
    cf: CFQueue, on_stage: OnStage, later: Later
) -> None:
    cf.queue("jobs", max_batch_timeout=5)(nothing)
    stage = on_stage()
    [lost, kept] = send(cf, 1, 2)
    stage.until(lambda: len(stage.lines["jobs"].batcher) == 2, running=False)
    [first, _] = stage.lines["jobs"].batcher
    stage.dispatcher.intake.turn([GiveBack([first], hold=60)])
    later(6)
    [job] = stage.given()
    assert job.ids == [kept]
    job.run()
    stage.until(lambda: stage.counts() == (0, 1, 0))
    assert [m.id for m in cf.queues["jobs"].peek()] == [lost]
