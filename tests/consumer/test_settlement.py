"""Outcomes on their way to the broker: refused ones are kept, late ones change nothing, results follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cfqueue import CFQueue, signals
from cfqueue.brokers.base import Begin, GiveBack, Settle, Take
from cfqueue.errors import BrokerFull, BrokerUnavailable

from .stage import Refusing, Stage

OnStage = Callable[..., Stage]
Later = Callable[[float], None]


@pytest.fixture
def runs(cf: CFQueue) -> list[Any]:
    """The bodies that the handler of ``jobs`` has seen; it fails on ``fail`` and retries ``retry``."""
    seen: list[Any] = []

    @cf.queue("jobs", max_batch_timeout=0, max_batch_size=2, max_retries=1, retry_delay=60)
    def jobs(batch: Any) -> None:
        for message in batch:
            seen.append(message.body)
            if message.body == "retry":
                message.retry()
            elif message.body == "fail":
                message.ack() if message.attempts > 9 else message.retry(delay_seconds=0)

    return seen


def refusing(stage: Stage) -> Refusing:
    intake = Refusing(stage.dispatcher.intake)
    stage.dispatcher.intake = intake
    return intake


def kinds(moves: list[Any]) -> set[type]:
    return {type(move) for move in moves}


# A broker that refuses


def test_a_full_broker_parks_outcomes_takes_nothing_and_settles_later_without_running_again(
    cf: CFQueue, on_stage: OnStage, runs: list[Any], later: Later, caplog: pytest.LogCaptureFixture
) -> None:
    stage = on_stage(slots=2)
    cf.queues["jobs"].send_batch([{"body": body} for body in ("retry", "b", "c", "d", "e")])
    first, second = stage.given(2)
    broker = refusing(stage)
    broker.error = BrokerFull("the disk is full")
    first.run()
    stage.turn()
    second.run()
    broker.asked.clear()
    for _ in range(6):
        later(0.05)
        stage.turn()
        later(6)
        stage.turn()
    assert broker.asked, "the settlement is tried again"
    assert all(kinds(moves) == {Settle} for moves in broker.asked), "and nothing new is taken"
    assert stage.jobs == []
    assert stage.counts() == (1, 0, 4)
    assert "They are kept" in caplog.text
    broker.error = None
    later(6)
    stage.until(lambda: stage.counts() == (0, 1, 0))
    assert sorted(runs) == ["b", "c", "d", "e", "retry"], "each has run once"
    assert stage.service.info()["outcomes"] == {"acked": 4, "retried": 1, "dropped": 0, "dead_lettered": 0}
    assert "takes outcomes again" in caplog.text


def test_pauses_between_tries_grow_to_five_seconds(
    cf: CFQueue, on_stage: OnStage, runs: list[Any], later: Later
) -> None:
    stage = on_stage()
    cf.queues["jobs"].send("a")
    [job] = stage.given()
    broker = refusing(stage)
    broker.error = BrokerUnavailable("locked")
    job.run()
    pauses = []
    for _ in range(9):
        stage.turn()
        broker.asked.clear()
        pause = 0.0
        while not broker.asked:
            later(0.1)
            pause += 0.1
            stage.turn()
        pauses.append(round(pause, 1))
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert 4.5 <= pauses[-1] <= 5.1


def test_a_broker_that_refuses_to_be_taken_from_is_asked_again(
    cf: CFQueue, on_stage: OnStage, runs: list[Any], later: Later, caplog: pytest.LogCaptureFixture
) -> None:
    stage = on_stage()
    broker = refusing(stage)
    broker.error = BrokerUnavailable("locked")
    cf.queues["jobs"].send("a")
    for _ in range(3):
        stage.turn()
        later(1)
    assert "nothing can be taken" in caplog.text
    broker.error = None
    stage.drained("jobs")
    assert runs == ["a"]


def test_a_held_batch_that_could_not_begin_is_held_on(cf: CFQueue, on_stage: OnStage, later: Later) -> None:
    seen: list[Any] = []
    cf.queue("jobs", max_batch_timeout=5)(lambda batch: seen.extend(m.body for m in batch))
    stage = on_stage()
    cf.queues["jobs"].send("a")
    stage.until(lambda: len(stage.lines["jobs"].batcher) == 1)
    broker = refusing(stage)
    broker.error = BrokerUnavailable("locked")
    later(6)
    stage.turn()
    assert any(kinds(moves) == {Begin} for moves in broker.asked)
    broker.error = None
    later(6)
    stage.drained("jobs")
    assert seen == ["a"]


def test_what_is_settled_and_what_is_taken_next_is_one_visit_to_the_broker(
    cf: CFQueue, on_stage: OnStage, runs: list[Any]
) -> None:
    stage = on_stage()
    cf.queues["jobs"].send_batch([{"body": body} for body in "abcd"])
    [job] = stage.given()
    broker = refusing(stage)
    job.run()
    stage.turn()
    assert [[type(move) for move in moves] for moves in broker.asked] == [[Settle, Take]]


# Late outcomes


def test_a_late_outcome_changes_nothing_and_is_not_announced(
    cf: CFQueue, on_stage: OnStage, runs: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    cf.queue("strict", max_batch_timeout=0, max_retries=0)(_fail)
    told: list[dict[str, Any]] = []
    buried: list[str] = []
    note, bury = (lambda **k: told.append(k)), (lambda message_id, **_: buried.append(message_id))
    stage = on_stage()
    sent = cf.queues["strict"].send("x")
    [job] = stage.given()
    stage.dispatcher.intake.turn([GiveBack(next(iter(stage.bridge.running.values())).deliveries)])
    stage.dispatcher.closing = True  # not taken up again here
    job.run()
    signals.batch_settled.connect(note)
    signals.message_dead_lettered.connect(bury)
    try:
        stage.turn()
    finally:
        signals.batch_settled.disconnect(note)
        signals.message_dead_lettered.disconnect(bury)
    assert "came too late" in caplog.text
    assert [(t["acked"], t["retried"], t["dead_lettered"]) for t in told] == [(0, 0, {})]
    assert buried == []
    assert stage.letters("strict-dlq") == {}
    assert [m.id for m in cf.queues["strict"].peek()] == [sent.id]


def _fail(batch: Any) -> None:
    raise ValueError("as asked")


# What observers are told


def test_observers_are_told_when_outcomes_are_durable(cf: CFQueue, on_stage: OnStage) -> None:
    @cf.queue("jobs", max_batch_timeout=0, max_retries=0)
    def jobs(batch: Any) -> None:
        batch[0].ack()
        batch[1].retry()

    told: list[tuple[str, Any]] = []

    def started(queue: str, size: int, suspicion: int, **_: Any) -> None:
        told.append(("started", (queue, size, suspicion)))

    def settled(queue: str, acked: int, dead_lettered: dict[str, int], **_: Any) -> None:
        told.append(("settled", (queue, acked, dead_lettered, stage.counts())))

    def dead(message_id: str, reason: str, to: str, **_: Any) -> None:
        told.append(("dead", (message_id, reason, to)))

    signals.batch_started.connect(started)
    signals.batch_settled.connect(settled)
    signals.message_dead_lettered.connect(dead)
    try:
        stage = on_stage()
        _, second = cf.queues["jobs"].send_batch([{"body": 1}, {"body": 2}]).ids
        stage.drained("jobs")
    finally:
        signals.batch_started.disconnect(started)
        signals.batch_settled.disconnect(settled)
        signals.message_dead_lettered.disconnect(dead)
    assert told == [
        ("started", ("jobs", 2, 0)),
        ("dead", (second, "retries_exhausted", "jobs-dlq")),
        ("settled", ("jobs", 1, {"retries_exhausted": 1}, (0, 0, 0))),
    ]


def test_an_observer_that_raises_changes_nothing(cf: CFQueue, on_stage: OnStage, runs: list[Any]) -> None:
    def broken(**_: Any) -> None:
        raise ValueError("an observer's own")

    signals.batch_settled.connect(broken)
    try:
        stage = on_stage()
        cf.queues["jobs"].send("a")
        stage.drained("jobs")
    finally:
        signals.batch_settled.disconnect(broken)
    assert runs == ["a"]


def test_without_a_dead_letter_queue_the_log_says_what_was_dropped(
    cf: CFQueue, on_stage: OnStage, caplog: pytest.LogCaptureFixture
) -> None:
    cf.queue("jobs", max_batch_timeout=0, max_retries=0, dead_letter_queue=None)(_fail)
    stage = on_stage()
    sent = cf.queues["jobs"].send("x")
    stage.drained("jobs")
    assert f"dropped message {sent.id} of queue jobs" in caplog.text
    assert stage.service.info()["outcomes"]["dropped"] == 1


# The result backend


def results(stage: Stage) -> None:
    """Wait for what was handed to the thread that writes results."""
    stage.service._results.close()
    stage.service._results._thread = None


@pytest.fixture
def asked(cf: CFQueue) -> Any:
    """A handler whose body says what becomes of the message; its dead letters have a handler, too."""

    @cf.queue("asked", max_batch_timeout=0, max_retries=1, retry_delay=0, dead_letter_queue="graves")
    def asked(batch: Any) -> None:
        for message in batch:
            if message.body != "ack":
                message.retry(delay_seconds=100 if message.body == "wait" else 0)

    cf.queue("graves", max_batch_timeout=0)(lambda batch: None)
    return asked


def test_an_ack_is_a_success_once_it_is_durable_and_not_before(
    cf: CFQueue, on_stage: OnStage, asked: Any, later: Later
) -> None:
    stage = on_stage()
    result = asked.delay("ack")
    [job] = stage.given()
    broker = refusing(stage)
    broker.error = BrokerFull("the disk is full")
    job.run()
    stage.turn()
    results(stage)
    assert result.state == "PENDING"
    broker.error = None
    later(1)
    stage.drained("asked")
    results(stage)
    assert result.state == "SUCCESS"


def test_a_dead_letter_is_a_failure_and_stays_one_when_its_letter_is_acked(
    cf: CFQueue, on_stage: OnStage, asked: Any
) -> None:
    stage = on_stage()
    result = asked.delay("fail")
    stage.drained("asked", "graves")
    results(stage)
    assert result.state == "FAILURE"
    assert "retries_exhausted" in str(result.result)


def test_a_retry_is_no_result(cf: CFQueue, on_stage: OnStage, asked: Any) -> None:
    stage = on_stage()
    result = asked.delay("wait")
    stage.until(lambda: stage.counts("asked") == (0, 1, 0))
    results(stage)
    assert result.state == "PENDING"


def test_a_late_outcome_is_no_result(cf: CFQueue, on_stage: OnStage, asked: Any) -> None:
    stage = on_stage()
    result = asked.delay("ack")
    [job] = stage.given()
    stage.dispatcher.intake.turn([GiveBack(next(iter(stage.bridge.running.values())).deliveries)])
    stage.dispatcher.closing = True
    job.run()
    stage.turn()
    results(stage)
    assert result.state == "PENDING"


def test_the_removed_twin_of_a_message_is_no_success(cf: CFQueue, on_stage: OnStage, asked: Any) -> None:
    stage = on_stage()
    result = asked.apply_async(("wait",), task_id="twice")
    asked.apply_async(("wait",), task_id="twice")
    stage.until(lambda: stage.counts("asked") == (0, 1, 0))
    results(stage)
    assert result.state == "PENDING"
    assert stage.service.info()["outcomes"] == {"acked": 0, "retried": 1, "dropped": 0, "dead_lettered": 0}


def test_a_message_sent_without_asking_for_a_result_has_none(
    cf: CFQueue, on_stage: OnStage, asked: Any
) -> None:
    stage = on_stage()
    sent = asked.send("ack")
    stage.drained("asked")
    results(stage)
    assert asked.task.AsyncResult(sent.id).state == "PENDING"


def test_a_result_backend_that_fails_changes_nothing(
    cf: CFQueue,
    on_stage: OnStage,
    asked: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OSError("the backend is away")

    stage = on_stage()
    monkeypatch.setattr(asked.task.backend, "mark_as_done", away)
    asked.delay("ack")
    stage.drained("asked")
    results(stage)
    assert "could not be written to the result backend" in caplog.text
