"""Calls on a batch, and what is decided from them: against an independent model of Cloudflare's rules."""

from __future__ import annotations

import logging
import pickle
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfqueue.errors import InvalidDelay
from cfqueue.messages import (
    Ack,
    BacklogMetrics,
    CallRecord,
    ConsumerSettings,
    DeadLetter,
    Drop,
    ErrorInfo,
    Message,
    MessageBatch,
    Outcome,
    Retry,
    resolve,
    settle,
)

THEN = datetime(2026, 1, 1, tzinfo=UTC)


def batch_of(*ids: str, **keywords: Any) -> MessageBatch:
    return MessageBatch("q", [Message(uid, THEN, None, 1, "json", "q") for uid in ids], **keywords)


@dataclass
class Model:
    """workerd's rules once more, from its report's point of view: one fate per id, and one for the rest."""

    fate: dict[str, tuple[str, int | None]] = field(default_factory=dict)  # in the order of the first call
    rest: str = "implicit"
    rest_delay: int | None = None

    def ack(self, uid: str) -> None:
        if self.rest == "implicit" and uid not in self.fate:
            self.fate[uid] = ("ack", None)

    def retry(self, uid: str, delay: int | None) -> None:
        if self.rest != "acked" and self.fate.get(uid, ("retry", None))[0] == "retry":
            self.fate[uid] = ("retry", delay)

    def ack_all(self) -> None:
        if self.rest == "implicit":
            self.rest = "acked"

    def retry_all(self, delay: int | None) -> None:
        if self.rest != "acked":
            self.rest = "retried"
            self.rest_delay = self.rest_delay if delay is None else delay

    def outcome(self, uid: str, failed: bool, consumer_delay: int) -> tuple[str, int | None]:
        default = consumer_delay if self.rest_delay is None else self.rest_delay
        kind, delay = self.fate.get(uid, (None, None))
        if kind is None:
            acked = self.rest == "acked" or (self.rest == "implicit" and not failed)
            kind = "ack" if acked else "retry"
        return (kind, None if kind == "ack" else default if delay is None else delay)


IDS = ["a", "b", "c", "a"]  # the last message has the id of the first
delays = st.none() | st.integers(0, 86_400)
calls = st.lists(
    st.tuples(st.just("ack"), st.integers(0, 3), st.none())
    | st.tuples(st.just("retry"), st.integers(0, 3), delays)
    | st.tuples(st.just("ack_all"), st.none(), st.none())
    | st.tuples(st.just("retry_all"), st.none(), delays),
    max_size=10,
)


def call(batch: MessageBatch, model: Model, name: str, index: int | None, delay: int | None) -> None:
    if index is None and name == "ack_all":
        batch.ack_all()
        model.ack_all()
    elif index is None:
        batch.retry_all(delay_seconds=delay)
        model.retry_all(delay)
    elif name == "ack":
        batch[index].ack()
        model.ack(IDS[index])
    else:
        batch[index].retry(delay_seconds=delay)
        model.retry(IDS[index], delay)


class TestAnySequenceOfCalls:
    @given(
        calls,
        st.booleans(),
        st.integers(0, 60),
        st.lists(st.integers(1, 5), min_size=4, max_size=4),
        st.booleans(),
    )
    def test_agrees_with_the_model(
        self, sequence: list[Any], failed: bool, retry_delay: int, attempts: list[int], dead_letters: bool
    ) -> None:
        batch, model = batch_of(*IDS), Model()
        for name, index, delay in sequence:
            call(batch, model, name, index, delay)
        record = batch.finish(ValueError("boom") if failed else None)

        assert record.outcome == ("exception" if failed else "ok")
        assert record.ack_all == (model.rest == "acked")
        assert (record.retry_all, record.retry_all_delay) == (model.rest == "retried", model.rest_delay)
        assert record.explicit_acks == [uid for uid, (kind, _) in model.fate.items() if kind == "ack"]
        assert list(record.retries.items()) == [
            (uid, delay) for uid, (kind, delay) in model.fate.items() if kind == "retry"
        ]

        settings = ConsumerSettings(
            "q", max_retries=2, retry_delay=retry_delay, dead_letter_queue="dlq" if dead_letters else None
        )
        outcomes = settle(record, list(zip(IDS, attempts, strict=True)), settings)
        for uid, attempt, outcome in zip(IDS, attempts, outcomes, strict=True):
            kind, delay = model.outcome(uid, failed, retry_delay)
            wanted: Outcome = Ack()
            if kind == "retry":
                assert delay is not None
                wanted = Retry(delay, record.error)
                assert resolve(record, uid, retry_delay) == wanted
                if attempt > 2:
                    wanted = (DeadLetter if dead_letters else Drop)("retries_exhausted", record.error)
            assert outcome == wanted

    def test_the_record_travels(self) -> None:
        batch = batch_of("a", "b")
        batch[0].ack()
        batch[1].retry(delay_seconds=3)
        record = batch.finish(ValueError("boom"))
        assert pickle.loads(pickle.dumps(record)) == record
        assert record.error is not None
        assert record.error.message == "boom"


class TestSettle:
    def settings(self, **changes: Any) -> ConsumerSettings:
        return ConsumerSettings("q", **{"max_retries": 3, "dead_letter_queue": "dlq", **changes})

    def test_max_retries_gives_one_delivery_more(self) -> None:
        record = CallRecord(retry_all=True)
        outcomes = [settle(record, [("a", attempt)], self.settings())[0] for attempt in (1, 2, 3, 4)]
        assert outcomes == [Retry(0), Retry(0), Retry(0), DeadLetter("retries_exhausted")]

    def test_none_at_all(self) -> None:
        outcome = settle(CallRecord(retry_all=True), [("a", 1)], self.settings(max_retries=0))
        assert outcome == [DeadLetter("retries_exhausted")]

    def test_the_last_error_goes_with_the_dead_letter(self) -> None:
        error = ErrorInfo("ValueError", "boom")
        record = CallRecord(outcome="exception", error=error)
        assert settle(record, [("a", 4)], self.settings()) == [DeadLetter("retries_exhausted", error)]

    def test_without_a_dead_letter_queue_it_is_dropped(self) -> None:
        outcome = settle(CallRecord(retry_all=True), [("a", 4)], self.settings(dead_letter_queue=None))
        assert outcome == [Drop("retries_exhausted")]

    def test_zero_counts_as_given_on_every_level(self) -> None:
        record = CallRecord(retry_all=True, retry_all_delay=0, retries={"a": 0, "b": None})
        outcomes = settle(record, [("a", 1), ("b", 1), ("c", 1)], self.settings(retry_delay=9))
        assert outcomes == [Retry(0), Retry(0), Retry(0)]
        record = CallRecord(retries={"a": 0, "b": None})
        assert settle(record, [("a", 1), ("b", 1)], self.settings(retry_delay=9)) == [Retry(0), Retry(9)]


class TestCalls:
    def test_cloudflares_spellings(self) -> None:
        batch = batch_of("a", "b", "c")
        batch[0].retry(delaySeconds=5)
        batch[1].retry({"delaySeconds": 6})
        batch[2].retry({"delay_seconds": 7})
        batch.retryAll(delaySeconds=8)
        assert batch.finish() == CallRecord("ok", False, True, 8, [], {"a": 5, "b": 6, "c": 7})
        other = batch_of("a")
        other.ackAll()
        assert other.finish().ack_all

    @pytest.mark.parametrize("delay", [-1, 1.5, 90_000, "5", "x", True])
    def test_a_bad_delay_raises_and_records_nothing(self, delay: Any) -> None:
        batch = batch_of("a")
        for attempt in (
            lambda: batch[0].retry(delay_seconds=delay),
            lambda: batch[0].retry({"delaySeconds": delay}),
            lambda: batch.retry_all(delaySeconds=delay),
        ):
            with pytest.raises(InvalidDelay, match="from 0 to 86400"):
                attempt()
        assert batch.finish() == CallRecord()

    def test_none_means_not_given(self) -> None:
        batch = batch_of("a", "b")
        batch[0].retry(delay_seconds=None)
        batch[1].retry({"delaySeconds": None})
        batch.retry_all(None)
        assert batch.finish() == CallRecord(retry_all=True, retries={"a": None, "b": None})

    @pytest.mark.parametrize(
        ("options", "keywords", "text"),
        [
            (5, {}, r"not a positional int: write retry\(delay_seconds=5\)"),
            ({"delay": 5}, {}, "'delay'"),
            (None, {"seconds": 5}, "'seconds'"),
            (None, {"delay_seconds": 5, "delaySeconds": 5}, "twice"),
        ],
    )
    def test_anything_else_is_a_type_error(self, options: Any, keywords: Any, text: str) -> None:
        with pytest.raises(TypeError, match=text):
            batch_of("a")[0].retry(options, **keywords)

    @pytest.mark.parametrize(
        ("first", "second", "text"),
        [
            (
                "ack_all",
                "retry",
                "Received a call to retry() on message a after ack_all() was already called.",
            ),
            ("ack", "retry", "Received a call to retry() on message a after ack() was already called."),
            (
                "retry_all",
                "ack",
                "Received a call to ack() on message a after retry_all() was already called.",
            ),
            ("retry", "ack", "Received a call to ack() on message a after retry() was already called."),
            ("ack_all", "retry_all", "Received a call to retry_all() after ack_all() was already called."),
            ("retry_all", "ack_all", "Received a call to ack_all() after retry_all() was already called."),
        ],
    )
    def test_a_call_without_effect_is_logged(
        self, caplog: pytest.LogCaptureFixture, first: str, second: str, text: str
    ) -> None:
        batch = batch_of("a")
        for name in (first, second):
            getattr(batch if name.endswith("_all") else batch[0], name)()
        assert [r.name for r in caplog.records] == ["cfqueue.messages"]
        assert caplog.text.count(text) == 1
        assert "has no effect." in caplog.text

    def test_ack_after_ack_all_is_silent(self, caplog: pytest.LogCaptureFixture) -> None:
        batch = batch_of("a")
        batch.ack_all()
        batch[0].ack()
        batch[0].ack()
        assert caplog.records == []

    def test_calls_after_the_end_are_logged_and_change_nothing(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        batch = batch_of("a")
        record = batch.finish()
        for late in (batch[0].ack, batch[0].retry, batch.ack_all, batch.retry_all):
            late()
        assert record == CallRecord()
        assert [r.levelno for r in caplog.records] == [logging.WARNING] * 4
        assert "ctx.wait_until" in caplog.text

    def test_finish_again_changes_nothing(self) -> None:
        batch = batch_of("a")
        assert batch.finish() is batch.finish(ValueError())
        assert batch.finish().outcome == "ok"
        assert batch.finished

    def test_a_message_of_no_batch_cannot_be_settled(self) -> None:
        lone = Message("a", THEN, None)
        for attempt in (lone.ack, lone.retry):
            with pytest.raises(RuntimeError, match="belongs to no batch"):
                attempt()


class TestBatch:
    def test_is_a_sequence_of_messages(self) -> None:
        batch = batch_of("a", "b", "c")
        assert [m.id for m in batch] == [m.id for m in batch.messages] == ["a", "b", "c"]
        assert len(batch) == 3
        assert batch[-1].id == "c"
        assert [m.id for m in batch[1:]] == ["b", "c"]
        assert "3 messages" in repr(batch)
        assert "attempt 1" in repr(batch[0])

    def test_metrics_are_asked_for_once_and_only_when_read(self) -> None:
        asked: list[int] = []

        def ask() -> BacklogMetrics:
            asked.append(1)
            return BacklogMetrics(7, 70, THEN)

        batch = batch_of("a", metrics=ask)
        assert asked == []
        metrics = batch.metadata.metrics
        assert batch.metadata.metrics is metrics
        assert asked == [1]
        assert (metrics.backlogCount, metrics.backlogBytes, metrics.oldestMessageTimestamp) == (7, 70, THEN)

    def test_what_nobody_can_tell_is_none(self) -> None:
        metrics = batch_of("a").metadata.metrics
        assert metrics == BacklogMetrics(None, None, None)
