"""``cfqueue.testing``: running handlers by hand, and the simulator."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from cfqueue.errors import (
    BatchTooLarge,
    ConfigurationError,
    HandlerSignatureError,
    InvalidDelay,
    InvalidQueueName,
    QueueConsumerConflict,
)
from cfqueue.messages import MessageBatch
from cfqueue.testing import (
    Context,
    QueueResult,
    RetryBatch,
    RetryMessage,
    Simulator,
    create_message_batch,
    get_queue_result,
)


def batch_of(*ids: str) -> MessageBatch:
    return create_message_batch("jobs", [{"id": uid, "body": {"n": uid}} for uid in ids])


class TestCreateMessageBatch:
    def test_a_message_has_what_was_given(self) -> None:
        moment = datetime(2026, 1, 2, tzinfo=UTC)
        batch = create_message_batch(
            "jobs", [{"id": "a", "body": [1], "timestamp": moment, "attempts": 3, "content_type": "text"}]
        )
        message = batch[0]
        assert (message.id, message.body, message.timestamp, message.attempts) == ("a", [1], moment, 3)
        assert (batch.queue, message.queue, message.content_type) == ("jobs", "jobs", "text")

    def test_what_was_not_given_has_a_default(self) -> None:
        message = batch_of("a")[0]
        assert message.attempts == 1
        assert message.content_type == "json"
        assert message.timestamp.tzinfo is UTC

    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            ({"body": 1}, "no 'id'"),
            ({"id": "a"}, "no 'body'"),
            ({"id": "", "body": 1}, "something in it"),
            ({"id": 7, "body": 1}, "is 7"),
            ({"id": "a", "body": 1, "attempts": 0}, "whole number from 1"),
            ({"id": "a", "body": 1, "attempts": True}, "whole number from 1"),
            ({"id": "a", "body": 1, "timestamp": 5}, "datetime with a time zone"),
            ({"id": "a", "body": 1, "timestamp": datetime(2026, 1, 1)}, "datetime with a time zone"),  # noqa: DTZ001
            ({"id": "a", "body": 1, "attempt": 2}, "'attempt' that means nothing"),
            ("a", "is of type str"),
        ],
    )
    def test_a_wrong_message_is_named(self, fields: Any, text: str) -> None:
        with pytest.raises((TypeError, ValueError), match=text):
            create_message_batch("jobs", [fields])

    def test_the_queue_name_is_checked(self) -> None:
        with pytest.raises(InvalidQueueName):
            create_message_batch("my queue", [])


class TestGetQueueResult:
    def test_the_result_in_both_spellings(self) -> None:
        def handle(batch: MessageBatch) -> None:
            batch[0].ack()
            batch[1].retry(delay_seconds=5)
            batch[2].retry()
            batch.retry_all(delay_seconds=0)

        result = get_queue_result(batch_of("a", "b", "c"), handle)
        assert result == QueueResult(
            "ok", False, RetryBatch(True, 0), ["a"], [RetryMessage("b", 5), RetryMessage("c")]
        )
        assert result.to_dict() == {
            "outcome": "ok",
            "ackAll": False,
            "retryBatch": {"retry": True, "delaySeconds": 0},
            "explicitAcks": ["a"],
            "retryMessages": [{"msgId": "b", "delaySeconds": 5}, {"msgId": "c"}],
        }

    def test_nothing_called(self) -> None:
        assert get_queue_result(batch_of("a"), lambda batch: None).to_dict() == {
            "outcome": "ok",
            "ackAll": False,
            "retryBatch": {"retry": False},
            "explicitAcks": [],
            "retryMessages": [],
        }

    def test_one_two_or_three_parameters(self) -> None:
        seen: list[Any] = []
        env, ctx = object(), Context()
        get_queue_result(batch_of("a"), lambda batch: seen.append(batch.queue), env)
        get_queue_result(batch_of("a"), lambda batch, env: seen.append(env), env)
        get_queue_result(batch_of("a"), lambda batch, env, ctx: seen.append((env, ctx)), env, ctx)
        assert seen == ["jobs", env, (env, ctx)]

    @pytest.mark.parametrize("handler", [lambda: None, lambda a, b, c, d: None, lambda batch, *, env: None])
    def test_any_other_signature_is_refused(self, handler: Any) -> None:
        with pytest.raises(HandlerSignatureError):
            get_queue_result(batch_of("a"), handler)

    def test_async_handlers(self) -> None:
        async def handle(batch: MessageBatch) -> None:
            await asyncio.sleep(0)
            batch.ack_all()

        assert get_queue_result(batch_of("a"), handle).ack_all

    def test_inside_a_running_loop(self) -> None:
        async def handle(batch: MessageBatch) -> None:
            await asyncio.sleep(0)
            batch.ack_all()

        async def test() -> QueueResult:
            return get_queue_result(batch_of("a"), handle)

        assert asyncio.run(test()).ack_all

    @pytest.mark.parametrize("error", [ValueError("no"), MemoryError(), SystemExit(3)])
    def test_an_exception_is_an_outcome(self, error: BaseException) -> None:
        def handle(batch: MessageBatch) -> None:
            batch[0].ack()
            raise error

        result = get_queue_result(batch_of("a", "b"), handle)
        assert result.outcome == "exception"
        assert result.error is error
        assert result.explicit_acks == ["a"]

    def test_ctrl_c_ends_the_test(self) -> None:
        def handle(batch: MessageBatch) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            get_queue_result(batch_of("a"), handle)

    def test_calls_inside_wait_until_count(self) -> None:
        def handle(batch: MessageBatch, env: Any, ctx: Context) -> None:
            async def later() -> None:
                await asyncio.sleep(0)
                batch[0].ack()

            ctx.wait_until(later())

        assert get_queue_result(batch_of("a"), handle).explicit_acks == ["a"]

    def test_a_rejected_wait_until_is_an_exception(self) -> None:
        async def handle(batch: MessageBatch, env: Any, ctx: Context) -> None:
            async def later() -> None:
                raise ValueError("later")

            ctx.wait_until(later())

        result = get_queue_result(batch_of("a"), handle)
        assert result.outcome == "exception"
        assert str(result.error) == "later"

    @pytest.mark.parametrize("style", ["def", "async def"])
    def test_wait_until_work_begun_before_a_failure_still_counts(self, style: str) -> None:
        def start(batch: MessageBatch, ctx: Context) -> None:
            async def later() -> None:
                batch[0].ack()
                raise ValueError("second")

            ctx.wait_until(later())

        def plain(batch: MessageBatch, env: Any, ctx: Context) -> None:
            start(batch, ctx)
            raise KeyError("first")

        async def coroutine(batch: MessageBatch, env: Any, ctx: Context) -> None:
            start(batch, ctx)
            raise KeyError("first")

        result = get_queue_result(batch_of("a"), plain if style == "def" else coroutine)
        assert result.explicit_acks == ["a"]
        assert isinstance(result.error, KeyError)

    def test_wait_until_takes_futures_of_threads(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:

            def handle(batch: MessageBatch, env: Any, ctx: Context) -> None:
                ctx.wait_until(pool.submit(batch[0].ack))

            assert get_queue_result(batch_of("a"), handle).explicit_acks == ["a"]

    def test_wait_until_takes_nothing_else(self) -> None:
        result = get_queue_result(batch_of("a"), lambda batch, env, ctx: ctx.wait_until(lambda: None))
        assert isinstance(result.error, TypeError)

    def test_one_event_loop_a_thread_closed_with_it(self) -> None:
        loops: list[asyncio.AbstractEventLoop] = []

        async def handle(batch: MessageBatch) -> None:
            loops.append(asyncio.get_running_loop())

        def twice() -> None:
            get_queue_result(batch_of("a"), handle)
            get_queue_result(batch_of("b"), handle)

        thread = threading.Thread(target=twice)
        thread.start()
        thread.join()
        del thread
        gc.collect()
        assert loops[0] is loops[1]
        assert loops[0].is_closed()

    def test_a_forked_child_makes_a_loop_of_its_own_and_leaves_the_parents_alone(self) -> None:
        loops: list[asyncio.AbstractEventLoop] = []

        async def handle(batch: MessageBatch) -> None:
            loops.append(asyncio.get_running_loop())
            await asyncio.to_thread(batch.ack_all)  # wakes the loop from another thread

        get_queue_result(batch_of("a"), handle)
        child = os.fork()
        if not child:
            get_queue_result(batch_of("b"), handle)
            gc.collect()
            os._exit(0 if loops[0] is not loops[1] and not loops[0].is_closed() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert get_queue_result(batch_of("c"), handle).ack_all
        assert loops[0] is loops[1]

    @pytest.mark.parametrize("batch", [[1], [{"id": "1", "body": 1}], None])
    def test_anything_else_than_a_batch_is_refused(self, batch: Any) -> None:
        with pytest.raises(TypeError, match=r"made with create_message_batch\(\)"):
            get_queue_result(batch, lambda batch: None)

    def test_a_batch_runs_once(self) -> None:
        batch = batch_of("a")
        get_queue_result(batch, lambda batch: None)
        with pytest.raises(ValueError, match="run before"):
            get_queue_result(batch, lambda batch: None)


def nothing(batch: MessageBatch) -> None:
    pass


class TestSimulator:
    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ({"max_batch": 3}, "Simulator.consumer('jobs'): there is no setting 'max_batch'. Did you mean "),
            ({"handler_": 3}, "Simulator.consumer('jobs'): there is no setting 'handler_'."),
            ({"time_limit": 3}, "Simulator.consumer('jobs'): time_limit has no effect in a simulator"),
            ({"max_batch_size": 0}, "Simulator.consumer('jobs'): max_batch_size is 0"),
        ],
    )
    def test_a_wrong_setting_is_named_as_it_was_given(self, settings: Any, text: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Simulator().consumer("jobs", nothing, **settings)
        assert str(caught.value).startswith(text)
        assert "@cf.queue" not in str(caught.value)

    def test_production_defaults(self) -> None:
        sim = Simulator()
        jobs = sim.queue("jobs")
        sim.consumer("jobs", nothing)
        jobs.send_batch([{"body": n} for n in range(12)])
        sim.advance(60)
        assert [(d.at, len(d.messages)) for d in sim.deliveries] == [(0, 10), (5, 2)]

    def test_after_the_last_retry_a_message_is_dropped_where_no_dead_letter_queue_is_named(self) -> None:
        sim = Simulator()
        sim.consumer("jobs", lambda batch: batch.retry_all())
        sent = sim.queue("jobs").send("a")
        sim.advance(60)
        assert [(d.at, d.messages[0].attempts) for d in sim.deliveries] == [(5, 1), (10, 2), (15, 3), (20, 4)]
        (dropped,) = sim.dropped
        assert (dropped.at, dropped.queue, dropped.reason) == (20, "jobs", "retries_exhausted")
        assert (dropped.id, dropped.body, dropped.attempts) == (sent.id, "a", 4)

    def test_a_dead_letter_keeps_id_timestamp_and_body_and_says_why(self) -> None:
        sim = Simulator(start=50)
        headers: list[Any] = []

        def fail(batch: MessageBatch) -> None:
            raise ValueError("no good")

        def bury(batch: MessageBatch) -> None:
            headers.append(batch[0].headers)

        sim.consumer("jobs", fail, max_batch_timeout=0, max_retries=1, retry_delay=3, dead_letter_queue="dlq")
        sim.consumer("dlq", bury, max_batch_timeout=0)
        sent = sim.queue("jobs").send({"n": 1})
        sim.advance(10)
        first, _, dead = sim.deliveries
        assert (dead.queue, dead.at) == ("dlq", 3)
        assert dead.messages[0] == first.messages[0]  # attempts are 1 again
        assert dead.messages[0].id == sent.id
        assert dead.messages[0].timestamp == datetime(1970, 1, 1, 0, 0, 50, tzinfo=UTC)
        assert headers[0]["cfq-reason"] == "retries_exhausted"
        assert headers[0]["cfq-failed-attempts"] == 2
        assert headers[0]["cfq-origin"] == "jobs"
        assert headers[0]["cfq-error-type"] == "ValueError"
        assert headers[0]["cfq-error-message"] == "no good"
        assert (headers[0]["cfq-first-failure"], headers[0]["cfq-last-failure"]) == (50_000, 53_000)

    def test_a_dead_letter_queue_is_an_ordinary_queue(self) -> None:
        sim = Simulator()
        sim.consumer(
            "jobs",
            lambda batch: batch.retry_all(),
            max_batch_timeout=0,
            max_retries=0,
            dead_letter_queue="dlq",
        )
        sim.queue("jobs").send("a")
        assert sim.queue("dlq").metrics().backlog_count == 1
        assert [each.body for each in sim.queue("dlq").peek()] == ["a"]
        sim.consumer("dlq", lambda batch: batch.retry_all(), max_batch_timeout=1, max_retries=0)
        sim.advance(1)
        assert [(each.queue, each.body) for each in sim.dropped] == [("dlq", "a")]

    def test_an_explicit_ack_survives_a_failure(self) -> None:
        sim = Simulator()

        def handle(batch: MessageBatch) -> None:
            if batch[0].attempts == 1:
                batch[0].ack()
                raise ValueError

        sim.consumer("jobs", handle, max_batch_size=2, max_batch_timeout=1)
        sim.queue("jobs").send_batch([{"body": "a"}, {"body": "b"}])
        sim.advance(5)
        assert [[m.body for m in d.messages] for d in sim.deliveries] == [["a", "b"], ["b"]]
        assert [d.result.outcome for d in sim.deliveries] == ["exception", "ok"]

    def test_a_handler_sends_to_another_queue_through_env(self) -> None:
        sim = Simulator()
        sim.queue("out-box")

        async def forward(batch: MessageBatch, env: Any) -> None:
            for message in batch:
                await env.OUT_BOX.send({"from": message.body}, delaySeconds=2)

        sim.consumer("jobs", forward, max_batch_timeout=0)
        sim.consumer("out-box", nothing, max_batch_timeout=0)
        sim.queue("jobs").send(1)
        sim.advance(3)
        assert [(d.at, d.queue, [m.body for m in d.messages]) for d in sim.deliveries] == [
            (0, "jobs", [1]),
            (2, "out-box", [{"from": 1}]),
        ]

    def test_every_delivery_gets_its_own_copy_of_the_body(self) -> None:
        sim = Simulator()
        bodies: list[Any] = []

        def spoil(batch: MessageBatch) -> None:
            bodies.append(dict(batch[0].body))
            batch[0].body["n"] = "spoiled"
            batch.retry_all()

        sim.consumer("jobs", spoil, max_batch_timeout=0, max_retries=1)
        sim.queue("jobs").send({"n": 1})
        assert bodies == [{"n": 1}, {"n": 1}]

    def test_delays_message_over_call_over_queue_and_zero_counts(self) -> None:
        sim = Simulator()
        jobs = sim.queue("jobs", delivery_delay=4)
        sim.consumer("jobs", nothing, max_batch_timeout=0)
        jobs.send_batch(
            [{"body": "m", "delay_seconds": 1}, {"body": "z", "delay_seconds": 0}, {"body": "b"}],
            delay_seconds=2,
        )
        jobs.send("q")
        assert jobs.metrics().delayed_count == 3
        sim.advance(10)
        assert [(d.at, d.messages[0].body) for d in sim.deliveries] == [
            (0, "z"),
            (1, "m"),
            (2, "b"),
            (4, "q"),
        ]

    def test_expired_messages_are_dead_lettered_not_delivered(self) -> None:
        sim = Simulator()
        sim.consumer("jobs", nothing, max_batch_timeout=5, dead_letter_queue="dlq")
        sim.queue("jobs").send_batch([{"body": "short", "expires": 3}, {"body": "long", "expires": 30}])
        sim.advance(5)
        assert [[m.body for m in d.messages] for d in sim.deliveries] == [["long"]]
        assert sim.queue("dlq").peek()[0].headers["cfq-reason"] == "expired"

    def test_purge_takes_delayed_messages_too_and_the_queue_goes_on(self) -> None:
        sim = Simulator()
        jobs = sim.queue("jobs")
        sim.consumer("jobs", nothing, max_batch_timeout=5)
        jobs.send("a")
        jobs.send("b", delay_seconds=1)
        assert jobs.purge() == 2
        sim.advance(1)
        jobs.send("c")
        sim.advance(5)
        assert [(d.at, [m.body for m in d.messages]) for d in sim.deliveries] == [(6, ["c"])]

    def test_send_batch_is_checked_as_in_production(self) -> None:
        jobs = Simulator().queue("jobs")
        with pytest.raises(BatchTooLarge):
            jobs.send_batch([])
        with pytest.raises(BatchTooLarge):
            jobs.send_batch([{"body": 1}] * 101)
        with pytest.raises(InvalidDelay):
            jobs.send(1, delay_seconds=86_401)
        assert jobs.metrics().backlog_count == 0

    def test_wrong_settings_are_refused(self) -> None:
        sim = Simulator()
        with pytest.raises(ConfigurationError):
            sim.consumer("jobs", nothing, max_batch_size=101)
        with pytest.raises(ConfigurationError):
            sim.consumer("jobs", nothing, dead_letter_queue="jobs")
        with pytest.raises(InvalidDelay):
            sim.queue("jobs", delivery_delay=-1)
        with pytest.raises(HandlerSignatureError):
            sim.consumer("jobs", lambda: None)
        sim.consumer("jobs", nothing)
        with pytest.raises(QueueConsumerConflict, match="nothing"):
            sim.consumer("jobs", nothing)

    def test_messages_that_go_round_in_a_circle_are_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cfqueue.testing.simulator._MOST_AT_ONCE", 50)
        sim = Simulator()
        again = {"max_batch_timeout": 0, "max_retries": 0}
        sim.consumer("a", lambda batch: batch.retry_all(), dead_letter_queue="b", **again)
        sim.consumer("b", lambda batch: batch.retry_all(), dead_letter_queue="a", **again)
        with pytest.raises(RuntimeError, match="in a circle"):
            sim.queue("a").send(1)

    def test_the_clock_moves_forward_only_and_only_in_the_test(self) -> None:
        sim = Simulator()
        for wrong in (-1, float("nan"), float("inf"), True, "1", None):
            with pytest.raises(ValueError, match="not negative"):
                sim.advance(wrong)
        sim.consumer("jobs", lambda batch: sim.advance(1), max_batch_timeout=0, max_retries=0)
        sim.queue("jobs").send(1)
        assert isinstance(sim.deliveries[0].result.error, RuntimeError)
        sim.advance(0.25)
        assert sim.now == 0.25
