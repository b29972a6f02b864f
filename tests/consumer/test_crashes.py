"""After a pool process has died under a batch: who runs again, alone, charged or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from billiard.exceptions import TimeLimitExceeded

from cfqueue import CFQueue
from cfqueue.consumer.batch import Batch, Report
from cfqueue.consumer.isolation import Isolation
from cfqueue.consumer.lines import Line
from cfqueue.messages import ConsumerSettings, build_message

from .stage import Stage, delivery

OnStage = Callable[..., Stage]
Later = Callable[[float], None]


@pytest.fixture
def runs(cf: CFQueue) -> list[list[Any]]:
    seen: list[list[Any]] = []

    @cf.queue("jobs", max_batch_timeout=0, max_batch_size=4, max_retries=1)
    def jobs(batch: Any) -> None:
        seen.append([(message.body, message.attempts) for message in batch])

    return seen


def send(cf: CFQueue, *bodies: Any) -> list[str]:
    return [cf.queues["jobs"].send(body).id for body in bodies]


def test_a_batch_whose_process_died_runs_again_one_at_a_time_at_once_and_uncharged(
    cf: CFQueue, on_stage: OnStage, runs: list[Any]
) -> None:
    stage = on_stage(slots=4)
    ids = send(cf, *"abc")
    stage.given()[0].die()
    order = []
    for _ in ids:
        stage.turn()
        [job] = stage.jobs
        order += job.ids
        job.run()
    stage.drained("jobs")
    assert order == ids, "never more than one slot, however many are free"
    assert runs == [[("a", 1)], [("b", 1)], [("c", 1)]]


def test_other_batches_are_untouched(cf: CFQueue, on_stage: OnStage, runs: list[Any]) -> None:
    stage = on_stage(slots=2)
    send(cf, *range(8))
    first, second = stage.given(2)
    first.die()
    stage.turn()
    assert second in stage.jobs
    second.run()
    stage.drained("jobs")
    assert [len(batch) for batch in runs] == [4, 1, 1, 1, 1]


@pytest.mark.parametrize("error", [None, TimeLimitExceeded(1)], ids=["died", "hard limit"])
def test_only_a_message_that_died_alone_is_charged_and_in_the_end_dead_lettered(
    cf: CFQueue, on_stage: OnStage, runs: list[Any], later: Later, error: Any
) -> None:
    stage = on_stage()
    [poison, innocent] = send(cf, "poison", "innocent")
    stage.given()[0].die(error)
    stage.turn()
    [alone] = stage.jobs
    assert alone.ids == [poison]
    alone.die(error)
    stage.turn()
    assert stage.counts()[1] == 1, "it waits for a second"
    [message] = [m for m in cf.broker.peek("jobs") if m.id == poison]
    assert (message.attempts, message.suspicion) == (2, 2)
    stage.jobs[0].run()
    later(1.1)
    later(0.3)
    [again] = stage.given()
    assert again.ids == [poison]
    again.die(error)
    stage.drained("jobs")
    assert stage.letters() == {poison: "crashed"}
    assert runs == [[("innocent", 1)]]
    assert innocent not in stage.letters()


def test_a_charged_message_waits_for_its_retry_delay(cf: CFQueue, on_stage: OnStage, later: Later) -> None:
    cf.queue("jobs", max_batch_timeout=0, retry_delay=30)(lambda batch: None)
    stage = on_stage()
    send(cf, "x")
    stage.given()[0].die()
    stage.turn()
    later(20)
    for _ in range(3):
        stage.turn()
    assert stage.jobs == []
    later(11)
    assert stage.given()


def test_twins_of_a_crashed_batch_run_once(cf: CFQueue, on_stage: OnStage, runs: list[Any]) -> None:
    stage = on_stage()
    cf.broker.publish(
        [build_message("jobs", body, timestamp_ms=1, message_id=f"id-{body}") for body in ("a", "a", "b")]
    )
    stage.given()[0].die()
    stage.drained("jobs")
    assert runs == [[("a", 1)], [("b", 1)]]


def test_a_batch_killed_by_command_is_given_back_uncharged(
    cf: CFQueue, on_stage: OnStage, runs: list[Any], later: Later
) -> None:
    stage = on_stage()
    [message] = send(cf, "x")
    stage.given()[0].killed()
    stage.until(lambda: stage.counts() == (0, 1, 0), running=False)
    [waiting] = cf.broker.peek("jobs")
    assert (waiting.id, waiting.attempts, waiting.suspicion) == (message, 1, 0)
    later(1.1)
    stage.drained("jobs")
    assert runs == [[("x", 1)]]


def test_a_batch_whose_request_was_terminated_is_given_back_uncharged(
    cf: CFQueue, on_stage: OnStage, runs: list[Any], later: Later
) -> None:
    stage = on_stage()
    send(cf, "x", "y")
    [job] = stage.given()
    job.accept()
    [request] = stage.bridge._requests.values()
    killed: list[Any] = []
    stage.pool.terminate_job = lambda pid, signal: killed.append(pid)  # type: ignore[attr-defined]
    request.terminate(stage.pool)
    job.die()  # billiard may report no more than a lost process
    stage.until(lambda: stage.counts() == (0, 2, 0), running=False)
    assert len(killed) == 1
    assert [(m.attempts, m.suspicion) for m in cf.broker.peek("jobs")] == [(1, 0), (1, 0)]


def test_a_stopping_worker_gives_back_what_had_still_to_run_alone(
    cf: CFQueue, on_stage: OnStage, runs: list[Any]
) -> None:
    stage = on_stage()
    send(cf, *"abc")
    stage.given()[0].die()
    stage.turn()
    [alone] = stage.jobs
    stage.service.close()
    stage.turn()
    assert stage.counts() == (2, 0, 1)
    alone.run()
    stage.turn()
    assert stage.counts() == (2, 0, 0)
    assert {(m.attempts, m.suspicion) for m in cf.broker.peek("jobs")} == {(1, 0)}


def test_what_a_process_could_not_run_is_given_back_and_said(
    cf: CFQueue, on_stage: OnStage, runs: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    stage = on_stage()
    send(cf, "x")
    stage.given()[0].end(Report(None, refused="this pool process knows no handler"))
    stage.until(lambda: stage.counts() == (0, 1, 0), running=False)
    assert "knows no handler" in caplog.text
    assert [m.attempts for m in cf.broker.peek("jobs")] == [1]


def test_messages_of_a_later_format_are_left_alone_and_the_others_run(
    cf: CFQueue, on_stage: OnStage, runs: list[Any], later: Later, caplog: pytest.LogCaptureFixture
) -> None:
    stage = on_stage()
    later_one = build_message("jobs", "later", timestamp_ms=1, headers={"cfq-version": "2"})
    cf.broker.publish([later_one])
    send(cf, "now")
    stage.until(lambda: stage.counts() == (0, 1, 0))
    assert runs == [[("now", 1)]]
    assert [(m.id, m.attempts) for m in cf.broker.peek("jobs")] == [(later_one.id, 1)]
    later(61)
    stage.until(lambda: caplog.text.count("of a later cfqueue format") == 2)


def test_something_that_is_no_report_counts_as_a_crash(
    cf: CFQueue, on_stage: OnStage, runs: list[Any]
) -> None:
    stage = on_stage()
    send(cf, "a", "b")
    stage.given()[0].end(ValueError("a pool's own"))
    stage.drained("jobs")
    assert runs == [[("a", 1)], [("b", 1)]]


# The groups themselves


def crashed(size: int) -> Batch:
    settings = ConsumerSettings("jobs")
    return Batch("b", settings, [delivery() for _ in range(size)])


def test_groups_of_several_crashed_batches_run_beside_each_other_one_message_each() -> None:
    isolation = Isolation()
    line = Line(ConsumerSettings("jobs"))
    for _ in range(2):
        isolation.add(line, crashed(2))
    first, second = isolation.next(), isolation.next()
    assert first is not None
    assert second is not None
    assert first.group is not second.group
    assert isolation.next() is None, "each group runs one message"
    assert len(isolation) == 4
    isolation.ended(first)
    third = isolation.next()
    assert third is not None
    assert third.group is first.group


def test_a_group_is_over_when_its_last_message_has_ended() -> None:
    isolation = Isolation()
    isolation.add(Line(ConsumerSettings("jobs")), crashed(1))
    only = isolation.next()
    assert only is not None
    assert isolation.clear() == []
    isolation.ended(only)
    assert isolation.next() is None
    assert len(isolation) == 0
