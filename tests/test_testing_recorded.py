"""Every recorded scenario of Cloudflare's runtime, replayed through the test kit.

``handler_scenarios`` (35) and ``workerd_recorded`` (600 random sequences) were recorded on raw workerd,
``broker_scenarios`` (28) and ``miniflare_recorded`` (60 random ones) on miniflare's queue broker with fake
timers.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import Any

import pytest
from recorded import Row, rows, run_operations, short

from cfqueue.errors import InvalidBody, InvalidContentType, InvalidDelay, InvalidMessage
from cfqueue.messages import Ack, CallRecord, ConsumerSettings, MessageBatch, Retry, settle
from cfqueue.testing import Context, QueueResult, Simulator, create_message_batch, get_queue_result

HANDLERS = rows("handler_scenarios")
RANDOM_HANDLERS = rows("workerd_recorded")
BROKERS = rows("broker_scenarios")
RANDOM_BROKERS = rows("miniflare_recorded")

#: JavaScript coerces these delays; cfqueue refuses them, so that the handler ends with an exception.
REFUSED_DELAYS = (
    "retry delay 1.5",
    "retry delay -1",
    "retry delay 90000",
    "retry delay '5'",
    "retry delay 'x'",
)
#: JavaScript turns null into 0; in cfqueue None means that no delay was given.
NULL_DELAY = "retry delay null"

#: Left out of the replay below, because of what Python or cfqueue does not have; each has a test of its own.
DIFFERENT = {
    "sendBatch with nested options:{} (docs MessageSendRequest.options)": (
        "workerd ignores unknown keys of a message silently; cfqueue refuses them"
    ),
    "content types round trip": "v8, Map and ArrayBuffer are JavaScript's; the rest of the row is replayed",
    "old compat date default v8": "cfqueue has no v8 and no compatibility dates",
    "no consumer: send succeeds, dropped": (
        "miniflare drops what has no consumer (production does not); the row has no deliveries, and here the "
        "message waits"
    ),
}


def by_name(row: Row) -> str:
    return str(row["name"])


def ids_of(row: Row) -> list[str]:
    return row.get("ids") or [f"m{i}" for i in range(row.get("n", 3))]


def run_row(row: Row) -> QueueResult:
    batch = create_message_batch("q", [{"id": uid, "body": None} for uid in ids_of(row)])
    return get_queue_result(batch, lambda batch, env, ctx: run_operations(row["ops"], batch, ctx))


def settled(row: Row, retry_delay: int) -> dict[str, Any]:
    """The outcome of each message, as ``expect`` writes it."""
    batch = create_message_batch("q", [{"id": uid, "body": None} for uid in ids_of(row)])
    records: list[CallRecord] = []

    def handler(batch: MessageBatch, env: Any, ctx: Context) -> None:
        run_operations(row["ops"], batch, ctx)

    result = get_queue_result(batch, handler)
    records.append(batch.finish())
    assert records[0].outcome == result.outcome
    settings = ConsumerSettings("q", retry_delay=retry_delay, dead_letter_queue="dlq")
    outcomes = settle(records[0], [(message.id, 1) for message in batch], settings)
    return {
        message.id: ["ack"] if isinstance(outcome, Ack) else ["retry", outcome.delay_seconds]
        for message, outcome in zip(batch, outcomes, strict=True)
        if isinstance(outcome, Ack | Retry)
    }


class TestHandlersDoWhatWorkerdRecorded:
    @pytest.mark.parametrize("row", HANDLERS, ids=by_name)
    def test_result(self, row: Row) -> None:
        result = run_row(row)
        if row["name"] in REFUSED_DELAYS:
            assert result.outcome == "exception"
            assert isinstance(result.error, InvalidDelay)
            assert "JavaScript would coerce it" in str(result.error) or "0 to 86400" in str(result.error)
        elif row["name"] == NULL_DELAY:
            assert short(result.to_dict()) == {"outcome": "ok", "retryMessages": [{"msgId": "m0"}]}
        else:
            assert short(result.to_dict()) == row["recorded"]

    @pytest.mark.parametrize("row", HANDLERS, ids=by_name)
    @pytest.mark.parametrize("retry_delay", [0, 77])
    def test_outcome_of_every_message(self, row: Row, retry_delay: int) -> None:
        expect = {
            uid: ["retry", retry_delay] if outcome == ["retry", "consumer"] else outcome
            for uid, outcome in row["expect"].items()
        }
        if row["name"] in REFUSED_DELAYS:
            expect = {uid: ["retry", retry_delay] for uid in ids_of(row)}  # the handler failed
        elif row["name"] == NULL_DELAY:
            expect["m0"] = ["retry", retry_delay]
        assert settled(row, retry_delay) == expect

    def test_six_hundred_random_sequences(self) -> None:
        different = [row for row in RANDOM_HANDLERS if short(run_row(row).to_dict()) != row["recorded"]]
        assert not different
        assert len(RANDOM_HANDLERS) == 600

    def test_no_row_is_forgotten(self) -> None:
        names = [row["name"] for row in HANDLERS]
        assert len(names) == 35
        assert set(names) >= {*REFUSED_DELAYS, NULL_DELAY}


OPTIONS = {
    "maxBatchSize": "max_batch_size",
    "maxBatchTimeout": "max_batch_timeout",
    "maxRetries": "max_retries",
    "retryDelay": "retry_delay",
    "deadLetterQueue": "dead_letter_queue",
}
#: miniflare's defaults, which are not production's.
MINIFLARE = {"maxBatchSize": 5, "maxBatchTimeout": 1, "maxRetries": 2}
START_MS = 1_000_000


def options(recorded: dict[str, Any]) -> dict[str, Any]:
    return {OPTIONS[name]: value for name, value in {**MINIFLARE, **recorded}.items()}


def within(ops: list[list[Any]], size: int) -> list[list[Any]]:
    """A random row names a message by its index modulo the size of the batch."""
    return [[op, *[a % size if isinstance(a, int) else a for a in arguments]] for op, *arguments in ops]


def simulate(row: Row, *, modulo: bool = False) -> Simulator:
    sim = Simulator(start=START_MS / 1000)
    plan = deque(row.get("plan", []))

    def handle(batch: MessageBatch, env: Any, ctx: Context) -> None:
        ops = plan.popleft() if plan else []
        run_operations(within(ops, len(batch)) if modulo else ops, batch, ctx)

    queue = sim.queue("q", delivery_delay=row.get("producer", {}).get("deliveryDelay"))
    if row.get("consumer", {}) is not None:
        sim.consumer("q", handle, **options(row.get("consumer", {})))
    if "dlqConsumer" in row:
        sim.consumer("dlq", lambda batch: None, **options(row["dlqConsumer"]))
    for step in row["steps"]:
        if "advance" in step:
            sim.advance(step["advance"] / 1000)
        elif "send" in step:
            queue.send(*step["send"])
        elif "sendBatch" in step:
            queue.send_batch(*step["sendBatch"])
    return sim


def deliveries(sim: Simulator, *, timestamps: bool) -> list[list[Any]]:
    numbers: dict[str, str] = {}
    return [
        [
            round(delivered.at * 1000),
            delivered.queue,
            [
                [
                    numbers.setdefault(message.id, f"#{len(numbers)}"),
                    message.body,
                    message.attempts,
                    *([round(message.timestamp.timestamp() * 1000)] if timestamps else []),
                ]
                for message in delivered.messages
            ],
        ]
        for delivered in sim.deliveries
    ]


def expected(row: Row) -> list[list[Any]]:
    chosen = row["docs"] if row.get("expected") == "docs" else row["deliveries"]
    return [delivery[:3] for delivery in chosen]  # a fourth value is the batch's metadata


def has_timestamps(recorded: list[list[Any]]) -> bool:
    return bool(recorded) and len(recorded[0][2][0]) == 4


class TestTheSimulatorDeliversWhatMiniflareRecorded:
    @pytest.mark.parametrize(
        "row",
        [row for row in BROKERS if row["name"] not in DIFFERENT or row["consumer"] is None],
        ids=by_name,
    )
    def test_deliveries(self, row: Row) -> None:
        wanted = expected(row)
        assert deliveries(simulate(row), timestamps=has_timestamps(wanted)) == wanted

    @pytest.mark.parametrize("row", RANDOM_BROKERS, ids=by_name)
    def test_random_deliveries(self, row: Row) -> None:
        wanted = expected(row)
        found = deliveries(simulate(row, modulo=True), timestamps=has_timestamps(wanted))
        # What happens on two queues at one instant has no order (the recorder let the dead letters go first).
        for queue in ("q", "dlq"):
            assert [d[::2] for d in by_body(found) if d[1] == queue] == [
                d[::2] for d in by_body(wanted) if d[1] == queue
            ]

    def test_no_row_is_forgotten(self) -> None:
        names = {row["name"] for row in BROKERS}
        assert len(BROKERS) == 28
        assert names >= DIFFERENT.keys()
        assert sum(row.get("expected") == "docs" for row in BROKERS) == 3
        assert len(RANDOM_BROKERS) == 60


def by_body(found: list[list[Any]]) -> list[list[Any]]:
    """Without the numbers, which depend on the order between queues; bodies are unique in a random row."""
    return [[at, queue, [message[1:] for message in messages]] for at, queue, messages in found]


class TestRowsThatDiffer:
    def test_unknown_keys_of_a_message_are_refused_not_ignored(self) -> None:
        with pytest.raises(InvalidMessage, match="options"):
            Simulator().queue("q").send_batch([{"body": "nested", "options": {"delaySeconds": 3}}])

    def test_content_types_round_trip(self) -> None:
        sim = Simulator()
        queue = sim.queue("q")
        sim.consumer("q", lambda batch: None, max_batch_size=20, max_batch_timeout=0)
        queue.send("t", {"contentType": "text"})
        queue.send({"a": [1, None]}, {"contentType": "json"})
        queue.send(bytes([1, 2, 3]), {"contentType": "bytes"})
        queue.send(datetime(1970, 1, 1, 0, 0, 0, 5000, tzinfo=UTC))
        queue.send(None)
        queue.send(True)
        queue.send("", {"contentType": "TEXT"})
        assert [d.messages[0].body for d in sim.deliveries] == [
            "t",
            {"a": [1, None]},
            b"\x01\x02\x03",
            "1970-01-01T00:00:00.005Z",
            None,
            True,
            "",
        ]

    def test_v8_is_refused(self) -> None:
        with pytest.raises(InvalidContentType, match="structured clone"):
            Simulator().queue("q").send({"a": 1}, content_type="v8")

    def test_what_json_does_not_have_is_refused_where_javascript_would_send_an_empty_object(self) -> None:
        with pytest.raises(InvalidBody, match="set"):
            Simulator().queue("q").send({1, 2})

    def test_without_a_consumer_a_message_waits_and_is_delivered_once_there_is_one(self) -> None:
        sim = simulate(next(row for row in BROKERS if row.get("consumer", {}) is None))
        assert sim.deliveries == []
        assert sim.queue("q").metrics().backlog_count == 1
        sim.consumer("q", lambda batch: None, max_batch_timeout=1)
        sim.advance(1)
        assert [m.body for m in sim.deliveries[0].messages] == ["a"]

    def test_metrics(self) -> None:
        """What ``send`` returns is not compared: its metrics are fetched when they are first read."""
        row = next(row for row in BROKERS if row["name"] == "send metrics + batch metadata")
        sim = Simulator(start=START_MS / 1000)
        seen: list[Any] = []
        sim.consumer("q", lambda batch: seen.append(batch.metadata.metrics), **options(row["consumer"]))
        queue = sim.queue("q")
        answers = [send["ok"] for send in row["sends"] if send["op"] == "metrics"]
        found = []
        for step in row["steps"]:
            if "send" in step:
                queue.send(*step["send"])
            elif "sendBatch" in step:
                queue.send_batch(*step["sendBatch"])
            elif "advance" in step:
                sim.advance(step["advance"] / 1000)
            else:
                found.append(camel(queue.metrics()))
        assert found == answers
        assert [camel(metrics) for metrics in seen] == [
            delivery[3]["metrics"] for delivery in row["deliveries"]
        ]


def camel(metrics: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"backlogCount": metrics.backlogCount, "backlogBytes": metrics.backlogBytes}
    if metrics.oldestMessageTimestamp is not None:
        oldest = metrics.oldestMessageTimestamp.isoformat(timespec="milliseconds")
        found["oldestMessageTimestamp"] = oldest.replace("+00:00", "Z")
    return found
