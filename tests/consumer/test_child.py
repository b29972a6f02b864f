"""Inside the pool: what a handler's end means, what comes back, and when nothing is run at all."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery, signals
from celery.exceptions import Ignore, Reject, Retry, WorkerShutdown

from cfqueue import CFQueue, clock
from cfqueue.consumer import child
from cfqueue.consumer.batch import Report
from cfqueue.consumer.child import run_batch, runners, unwire, wire
from cfqueue.messages import Ack, DeadLetter, Delivery, build_message
from cfqueue.messages import Retry as Again

from .stage import delivery

Run = Callable[..., Report]


@pytest.fixture
def run(cf: CFQueue) -> Any:
    """``run(handler, *bodies)``: the handler's report on a batch of these bodies, or of these deliveries."""

    def run(handler: Any, *bodies: Any, parent: int | None = None, **settings: Any) -> Report:
        cf.queue("jobs", **{"max_retries": 5, "retry_delay": 7, **settings})(handler)
        runners["key", "jobs"] = cf.consumers["jobs"].runner()
        messages = [body if isinstance(body, Delivery) else delivery(body) for body in bodies or ("x",)]
        return run_batch("key", "jobs", "batch", parent or os.getpid(), [wire(one) for one in messages])

    yield run
    runners.pop(("key", "jobs"), None)


def raising(error: BaseException) -> Callable[[Any], None]:
    def handler(batch: Any) -> None:
        raise error

    return handler


def delays(report: Report) -> list[int]:
    assert report.outcomes is not None
    assert all(isinstance(outcome, Again) for outcome in report.outcomes), report.outcomes
    return [outcome.delay_seconds for outcome in report.outcomes]


# How a handler ends


def test_a_handler_that_returns_acks_everything_and_says_so_briefly(run: Run) -> None:
    report = run(lambda batch: None, 1, 2, 3)
    assert report.outcomes is None
    assert report.error is None
    assert report.runtime >= 0


@pytest.mark.parametrize(
    "error", [ValueError("x"), MemoryError(), SystemExit(3), KeyboardInterrupt(), RecursionError()], ids=repr
)
def test_every_exception_is_an_answer(run: Run, error: BaseException) -> None:
    report = run(raising(error), 1, 2)
    assert delays(report) == [7, 7]
    assert report.error is not None
    assert report.error.type == type(error).__name__


def test_an_explicit_ack_survives_an_exception(run: Run) -> None:
    def handler(batch: Any) -> None:
        batch[0].ack()
        raise ValueError

    report = run(handler, 1, 2)
    assert report.outcomes is not None
    assert [type(outcome) for outcome in report.outcomes] == [Ack, Again]


def test_an_end_of_the_process_is_not_an_answer(run: Run) -> None:
    with pytest.raises(SystemExit):
        run(raising(SystemExit(child._TERMINATED)))


def test_an_end_of_the_worker_is_not_an_answer(run: Run) -> None:
    with pytest.raises(WorkerShutdown):
        run(raising(WorkerShutdown(0)))


@pytest.mark.parametrize("answer", [(x for x in "ab"), "async"], ids=["generator", "async generator"])
def test_a_handler_that_returns_a_generator_fails_its_batch(run: Run, answer: Any) -> None:
    async def agenerator() -> Any:
        yield 1

    report = run(lambda batch: agenerator() if answer == "async" else answer, 1, 2)
    assert delays(report) == [7, 7]
    assert report.error is not None
    assert "nothing of it has run" in report.error.message


# Celery's own control exceptions


@pytest.mark.parametrize(
    ("when", "delay"),
    [
        (None, 7),
        (0, 0),
        (30, 30),
        (1.2, 2),
        (10**9, 86_400),
        (math.inf, 86_400),
        (-5, 0),
        (-math.inf, 0),
        (math.nan, 7),
        (True, 7),
        ("soon", 7),
        (10**400, 86_400),
        (timedelta(seconds=5), 7),
    ],
    ids=lambda value: str(value)[:12],
)
def test_raising_retry_is_a_retry_whatever_its_time(run: Run, when: Any, delay: int) -> None:
    assert delays(run(raising(Retry("again", when=when)), 1, 2)) == [delay, delay]


@pytest.mark.parametrize("zone", [UTC, None], ids=["utc", "no zone"])
@pytest.mark.parametrize(("seconds", "expected"), [(100, 100), (-100, 0), (10**8, 86_400)])
def test_raising_retry_takes_a_date(run: Run, zone: Any, seconds: int, expected: int) -> None:
    when = datetime.fromtimestamp(clock.now() + seconds, UTC).replace(tzinfo=zone)
    [delay] = delays(run(raising(Retry("again", when=when))))
    assert expected - 90 <= delay <= expected + 1


@pytest.mark.parametrize("year", [1, 9999])
def test_raising_retry_takes_any_date(run: Run, year: int) -> None:
    when = datetime(year, 1, 1, tzinfo=UTC).replace(tzinfo=None)
    [delay] = delays(run(raising(Retry("again", when=when))))
    assert 0 <= delay <= 86_400


def test_raising_retry_spares_what_was_acked(run: Run) -> None:
    def handler(batch: Any) -> None:
        batch[0].ack()
        raise Retry("again", when=3)

    report = run(handler, 1, 2)
    assert report.outcomes == [Ack(), Again(3)]


def test_raising_reject_dead_letters_what_the_handler_did_not_settle(run: Run) -> None:
    def handler(batch: Any) -> None:
        batch[0].ack()
        batch[1].retry(delay_seconds=1)
        raise Reject("no use", requeue=False)

    report = run(handler, 1, 2, 3)
    assert report.outcomes is not None
    assert [type(outcome) for outcome in report.outcomes] == [Ack, Again, DeadLetter]
    assert report.outcomes[2].reason == "rejected"  # type: ignore[union-attr]


def test_raising_reject_with_requeue_is_a_retry(run: Run) -> None:
    assert delays(run(raising(Reject("later", requeue=True)))) == [7]


def test_raising_ignore_acks(run: Run) -> None:
    assert run(raising(Ignore())).outcomes is None


def test_a_deployment_that_raised_the_longest_delay_has_it_inside_handlers(app: Celery, run: Run) -> None:
    app.conf.cfqueue_max_delay_seconds = 200_000

    def handler(batch: Any) -> None:
        batch[0].retry(delay_seconds=100_000)
        raise Retry("again", when=10**9)

    assert delays(run(handler, 1, 2)) == [100_000, 200_000]


def test_without_that_a_longer_delay_is_an_error(run: Run) -> None:
    report = run(lambda batch: batch[0].retry(delay_seconds=100_000))
    assert report.error is not None
    assert report.error.type.endswith("InvalidDelay")


# Messages that cannot be read


def test_what_cannot_be_read_is_dead_lettered_and_the_others_run(run: Run) -> None:
    seen: list[Any] = []
    broken = delivery("x")
    broken.body = "{"
    report = run(lambda batch: seen.extend(m.body for m in batch), 1, broken, 2)
    assert seen == [1, 2]
    assert report.outcomes is not None
    assert [type(outcome) for outcome in report.outcomes] == [Ack, DeadLetter, Ack]
    assert report.outcomes[1].reason == "decode_failed"  # type: ignore[union-attr]


def test_a_batch_of_nothing_readable_calls_no_handler(run: Run) -> None:
    broken = delivery("x")
    broken.body = "{"
    report = run(raising(AssertionError("called")), broken)
    assert report.error is None


def test_a_message_of_a_later_format_is_left_alone(run: Run) -> None:
    seen: list[Any] = []
    made = build_message("jobs", "later", timestamp_ms=1, headers={"cfq-version": "2.1"})
    later = Delivery("jobs", made.id, made.headers, made.body)
    report = run(lambda batch: seen.extend(m.body for m in batch), 1, later)
    assert seen == [1]
    assert report.left_alone == (1,)


def test_a_message_travels_to_the_child_as_it_is() -> None:
    one = delivery({"a": 1}, attempts=3, suspicion=1, priority=4, expires_ms=5, first_failed_ms=6)
    assert unwire("jobs", wire(one)) == one


# When nothing is run


def test_a_child_does_not_run_for_a_worker_that_has_died(run: Run) -> None:
    [strange] = {1, 2} - {os.getpid(), os.getppid()} if os.getppid() in (1, 2) else [2**22 + 1]
    report = run(raising(AssertionError("called")), parent=strange)
    assert report.refused is not None
    assert "has died" in report.refused
    assert report.outcomes is None


def test_a_child_runs_for_the_worker_that_is_its_parent(run: Run) -> None:
    assert run(lambda batch: None, parent=os.getppid()).refused is None


def test_a_child_that_knows_no_handler_says_so() -> None:
    report = run_batch("key", "unknown", "batch", os.getpid(), [])
    assert report.refused is not None
    assert "'unknown'" in report.refused


# What Celery's users see


def test_celerys_signals_are_sent_and_a_receiver_that_raises_changes_nothing(
    cf: CFQueue, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []

    def before(task_id: str, **_: Any) -> None:
        told.append(("before", task_id))
        raise ValueError("a receiver's own")

    def after(state: str, **_: Any) -> None:
        told.append(("after", state))

    def failed(exception: Exception, **_: Any) -> None:
        told.append(("failed", str(exception)))

    signals.task_prerun.connect(before)
    signals.task_postrun.connect(after)
    signals.task_failure.connect(failed)
    try:
        assert delays(run(raising(ValueError("as asked")))) == [7]
    finally:
        signals.task_prerun.disconnect(before)
        signals.task_postrun.disconnect(after)
        signals.task_failure.disconnect(failed)
    assert told == [("before", "batch"), ("failed", "as asked"), ("after", "FAILURE")]


def test_the_current_task_is_the_queues_while_its_handler_runs(cf: CFQueue, run: Run) -> None:
    from celery import current_task

    seen: list[Any] = []
    run(lambda batch: seen.append((current_task.name, current_task.request.id)))
    assert seen == [("cfqueue.queue.jobs", "batch")]
    assert not current_task


def test_the_log_line_of_a_failure_names_queue_and_batch(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "cfqueue.consumer"):
        run(raising(ValueError("as asked")))
    [line] = [r.getMessage() for r in caplog.records if r.name == "cfqueue.consumer"]
    assert "queue jobs" in line
    assert "batch batch" in line
