"""Sending: every bad argument is refused before anything is sent, with a text that says what to do."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord, group

from cfqueue import CFQueue, ConfigurationError, InvalidMessage, Queue, SendUncertain
from cfqueue.errors import (
    BadArguments,
    BatchTooLarge,
    BrokerFull,
    BrokerUnavailable,
    CFQueueError,
    InvalidBody,
    InvalidContentType,
    InvalidDelay,
    InvalidExpiry,
    InvalidPriority,
    InvalidQueueName,
    MessageTooLarge,
)
from cfqueue.messages import OutgoingMessage
from cfqueue.transport.store import Store


@pytest.fixture
def cf(tmp_path: Path) -> Iterator[CFQueue]:
    database = tmp_path / "q.db"
    app = Celery("producer", broker=f"cfqueue+sqlite:///{database}", set_as_current=False)
    app.conf.cfqueue_queues = {"late": {"delivery_delay": 7}}
    cf = CFQueue(app)
    yield cf
    app.close()
    if database.exists():
        Store.at(str(database)).close()


@pytest.fixture
def queue(cf: CFQueue) -> Queue:
    return cf.queues["jobs"]


def delays(queue: Queue) -> list[int]:
    """Seconds from sending to being due, in the order of sending."""
    store = Store.at(queue._broker().path)  # type: ignore[attr-defined]
    rows = store.read_all("SELECT due_ms - timestamp_ms FROM cfqueue_messages ORDER BY id")
    return [round(row[0] / 1000) for row in rows]


# One message

BAD: dict[str, tuple[Any, dict[str, Any], type[CFQueueError], str]] = {
    "not encodable": ({"a": [1, {2}]}, {}, InvalidBody, r"\$\.a\[1\]"),
    "an object": (object(), {}, InvalidBody, "object"),
    "NaN": ({"x": math.nan}, {}, InvalidBody, r"\$\.x"),
    "infinity": ([math.inf], {}, InvalidBody, r"\$\[0\]"),
    "lone surrogate": ({"s": "a\ud800"}, {}, InvalidBody, "surrogate"),
    "lone surrogate as text": ("a\udfff", {"content_type": "text"}, InvalidBody, "surrogate"),
    "text that is no text": (1, {"content_type": "text"}, InvalidBody, "takes a str"),
    "bytes that are text": ("x", {"content_type": "bytes"}, InvalidBody, "takes bytes"),
    "one byte too large": ("x" * (128_000 - 1), {}, MessageTooLarge, "128001 bytes exceeds limit of 128000"),
    "one byte too large as text": ("x" * 128_001, {"content_type": "text"}, MessageTooLarge, "128001"),
    "unknown content type": ("x", {"content_type": "xml"}, InvalidContentType, "'xml'"),
    "content type v8": ("x", {"content_type": "v8"}, InvalidContentType, "structured clone"),
    "content type that is no text": ("x", {"content_type": 5}, InvalidContentType, "5"),
    "delay -1": ("x", {"delay_seconds": -1}, InvalidDelay, "0 to 86400.*-1"),
    "delay 1.5": ("x", {"delay_seconds": 1.5}, InvalidDelay, "1.5"),
    "delay '5'": ("x", {"delay_seconds": "5"}, InvalidDelay, "'5'"),
    "delay True": ("x", {"delay_seconds": True}, InvalidDelay, "True"),
    "delay 86401": ("x", {"delay_seconds": 86_401}, InvalidDelay, "86401"),
    "delay in Cloudflare's spelling": ("x", {"delaySeconds": -1}, InvalidDelay, "-1"),
    "priority 10": ("x", {"priority": 10}, InvalidPriority, "0 .*9"),
    "priority True": ("x", {"priority": True}, InvalidPriority, "True"),
    "priority '5'": ("x", {"priority": "5"}, InvalidPriority, "'5'"),
    "expires 0": ("x", {"expires": 0}, InvalidExpiry, "positive"),
    "expires in the past": ("x", {"expires": timedelta(seconds=-1)}, InvalidExpiry, "positive"),
    "expires True": ("x", {"expires": True}, InvalidExpiry, "True"),
    "expires NaN": ("x", {"expires": math.nan}, InvalidExpiry, "nan"),
    "expires without zone": ("x", {"expires": datetime(2030, 1, 1)}, InvalidExpiry, "time zone"),  # noqa: DTZ001
    "timeout 0": ("x", {"timeout": 0}, InvalidMessage, "timeout=0"),
    "timeout text": ("x", {"timeout": "1"}, InvalidMessage, "timeout='1'"),
    "timeout NaN": ("x", {"timeout": math.nan}, InvalidMessage, "timeout"),
    "unknown option": ("x", {"delay": 5}, InvalidMessage, "'delay'"),
    "unknown option in a mapping": ("x", {"options": {"delaySecs": 5}}, InvalidMessage, "'delaySecs'"),
    "options that are no mapping": ("x", {"options": 5}, InvalidMessage, "one mapping"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_refused_and_nothing_is_sent(queue: Queue, case: str) -> None:
    body, options, error, text = BAD[case]
    with pytest.raises(error, match=f"(?s){text}") as caught:
        queue.send(body, **options)
    assert isinstance(caught.value, InvalidMessage)
    assert isinstance(caught.value, ValueError)
    assert queue.metrics().backlog_count == 0


def test_the_largest_message_is_sent(queue: Queue) -> None:
    queue.send("x" * (128_000 - 2))
    queue.send("x" * 128_000, content_type="text")
    queue.send(b"x" * 128_000, content_type="bytes")
    assert queue.metrics().backlog_bytes == 3 * 128_000


@pytest.mark.parametrize("name", ["", "with space", "a" * 64, "-a", "a-", "a_b", "a.b", "ü", "a/b", 5, None])
def test_a_bad_queue_name_is_refused(cf: CFQueue, name: Any) -> None:
    with pytest.raises(InvalidQueueName, match="1 to 63"):
        cf.queues[name]
    with pytest.raises(InvalidQueueName, match="1 to 63"):
        cf.queue(name)


@pytest.mark.parametrize("name", ["a", "A-9", "a" * 63, "0"])
def test_a_good_queue_name_is_taken(cf: CFQueue, name: str) -> None:
    assert cf.queues[name].name == name
    assert cf.queues[name] is cf.queues[name]


@pytest.mark.parametrize(
    "body",
    [
        None,
        0,
        "",
        [],
        {},
        True,
        1.5,
        "ü\u2028",
        {"n": 2**53},
        datetime(2024, 1, 1, tzinfo=UTC),
        date(2024, 1, 1),
        uuid.UUID(int=5),
    ],
    ids=repr,
)
def test_what_json_knows_is_sent_and_read_back(queue: Queue, body: Any) -> None:
    queue.send(body)
    [found] = queue.peek()
    expected = {datetime: "2024-01-01T00:00:00.000Z", date: "2024-01-01", uuid.UUID: str(uuid.UUID(int=5))}
    assert found.body == expected.get(type(body), body)


def test_options_are_taken_in_every_spelling(queue: Queue) -> None:
    queue.send("a", {"contentType": "text", "delaySeconds": 1})
    queue.send("b", contentType="text", delaySeconds=2)
    queue.send("c", content_type="TEXT", delay_seconds=3)
    queue.sendBatch([{"body": "d", "contentType": "text", "delaySeconds": 4}], {"delaySeconds": 9})
    assert {m.content_type for m in queue.peek()} == {"text"}
    assert delays(queue) == [1, 2, 3, 4]


def test_an_id_is_32_hexadecimal_digits_and_no_two_are_the_same(queue: Queue) -> None:
    results = [queue.send(n) for n in range(10)]
    assert len({r.id for r in results}) == 10
    assert all(len(r.id) == 32 and set(r.id) <= set("0123456789abcdef") for r in results)
    assert all(r.ids == [r.id] for r in results)


def test_an_expiry_is_seconds_a_timedelta_or_a_date(queue: Queue) -> None:
    now = datetime.now(UTC)
    for expires in (60, 60.5, timedelta(minutes=1), now + timedelta(minutes=1),
                    (now + timedelta(minutes=1)).astimezone(timezone(timedelta(hours=5)))):  # fmt: skip
        queue.send("x", expires=expires)
    for message in queue.peek():
        expires = datetime.fromisoformat(message.headers["expires"])
        assert timedelta(seconds=59) < expires - now < timedelta(seconds=70)


# Delays: message, then call, then queue


def test_the_delay_of_the_message_wins_over_the_calls_over_the_queues(cf: CFQueue) -> None:
    late = cf.queues["late"]
    late.send("default")
    late.send("own", delay_seconds=3)
    late.send("zero counts", delay_seconds=0)
    late.send("none does not", delay_seconds=None)
    late.send_batch(
        [{"body": 1}, {"body": 2, "delay_seconds": 4}, {"body": 3, "delay_seconds": 0}], delay_seconds=5
    )
    late.send_batch([{"body": 1}, {"body": 2, "delay_seconds": None}], delay_seconds=0)
    late.send_batch([{"body": 1}])
    assert delays(late) == [7, 3, 0, 7, 5, 4, 0, 0, 0, 7]


def test_the_handlers_own_methods_are_the_queues(cf: CFQueue) -> None:
    @cf.queue("late")
    def handle(batch: Any) -> None: ...

    handle.send("a")
    handle.send_batch([{"body": "b"}], delay_seconds=1)
    handle.sendBatch([{"body": "c"}], {"delaySeconds": 2})
    handle.apply_async(["d"], countdown=2.2)
    handle.apply_async(["e"], countdown=0)
    handle.delay("f")
    assert delays(handle.queue) == [7, 1, 2, 3, 0, 7]


# Batches


def many(count: int, size: int = 1) -> list[dict[str, Any]]:
    return [{"body": "x" * size, "content_type": "text"} for _ in range(count)]


BAD_BATCHES: dict[str, tuple[Any, dict[str, Any], type[CFQueueError], str]] = {
    "empty": ([], {}, BatchTooLarge, "at least one message"),
    "101 messages": (many(101), {}, BatchTooLarge, "100"),
    "one byte too many": (
        [*many(2, 128_000), *many(1)],
        {},
        BatchTooLarge,
        "256001 bytes exceeds limit of 256000",
    ),
    "one message": ({"body": 1}, {}, InvalidMessage, "list of messages"),
    "a text": ("abc", {}, InvalidMessage, "list of messages"),
    "no body": ([{"body": 1}, {"text": 1}], {}, InvalidMessage, "'body'"),
    "a bare body": ([1], {}, InvalidMessage, "mapping with a 'body'"),
    "unknown key": ([{"body": 1, "delay": 5}], {}, InvalidMessage, "'delay'"),
    "a bad delay": ([{"body": 1, "delay_seconds": True}], {}, InvalidDelay, "True"),
    "a bad call delay": ([{"body": 1}], {"delay_seconds": 1.5}, InvalidDelay, "1.5"),
    "a bad call type": ([{"body": 1}], {"content_type": "v8"}, InvalidContentType, "v8"),
    "a bad timeout": ([{"body": 1}], {"timeout": -1}, InvalidMessage, "timeout=-1"),
    "no list": (5, {}, InvalidMessage, "list of messages"),
    "nothing": (None, {}, InvalidMessage, "list of messages"),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_a_bad_batch_is_refused_and_nothing_of_it_is_sent(queue: Queue, case: str) -> None:
    messages, options, error, text = BAD_BATCHES[case]
    with pytest.raises(error, match=text):
        queue.send_batch(messages, **options)
    assert queue.metrics().backlog_count == 0


def test_the_text_says_which_message_of_a_batch_was_bad(queue: Queue) -> None:
    with pytest.raises(InvalidBody) as caught:
        queue.send_batch([{"body": 1}, {"body": {2}}])
    assert any("message 1 of the batch" in note for note in caught.value.__notes__)


def test_the_largest_batch_is_sent_from_any_iterable(queue: Queue) -> None:
    result = queue.send_batch(iter(many(100, 2_560)))
    assert len(result.ids) == 100
    assert [m.id for m in queue.peek(100)] == result.ids
    assert result.metadata.metrics.backlog_bytes == 256_000


def test_a_deployment_can_raise_the_sizes(tmp_path: Path) -> None:
    app = Celery("big", broker=f"cfqueue+sqlite:///{tmp_path}/q.db", set_as_current=False)
    app.conf.update(
        cfqueue_max_message_bytes=200_000, cfqueue_max_send_batch_count=150, cfqueue_max_delay_seconds=100_000
    )
    queue = CFQueue(app).queues["jobs"]
    queue.send("x" * 150_000, delay_seconds=90_000)
    queue.send_batch(many(150))
    with pytest.raises(MessageTooLarge, match="200000"):
        queue.send("x" * 200_000)
    with pytest.raises(BatchTooLarge, match="150"):
        queue.send_batch(many(151))
    Store.at(str(tmp_path / "q.db")).close()


# Celery's way


@pytest.fixture
def handle(cf: CFQueue) -> Any:
    @cf.queue("jobs")
    def handle(batch: Any) -> None: ...

    return handle


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2), {}), ((), {"body": 1}), ((1,), {"x": 2})],
    ids=["none", "two", "kw", "both"],
)
def test_delay_takes_one_positional_argument(
    handle: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(BadArguments, match="exactly one positional argument"):
        handle.delay(*args, **kwargs)
    with pytest.raises(BadArguments, match="exactly one positional argument"):
        handle.apply_async(args, kwargs)
    assert handle.queue.metrics().backlog_count == 0


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"countdown": -1}, InvalidDelay, "countdown=-1"),
        ({"countdown": "5"}, InvalidDelay, "countdown='5'"),
        ({"countdown": True}, InvalidDelay, "countdown=True"),
        ({"countdown": math.nan}, InvalidDelay, "countdown=nan"),
        ({"countdown": math.inf}, InvalidDelay, "countdown=inf"),
        ({"countdown": 90_000}, InvalidDelay, "86400"),
        ({"eta": "tomorrow"}, InvalidDelay, "eta='tomorrow'"),
        ({"priority": 11}, InvalidPriority, "11"),
        ({"expires": -5}, InvalidExpiry, "-5"),
        ({"count_down": 5}, InvalidMessage, "'count_down'"),
    ],
)
def test_bad_options_of_apply_async_are_refused(
    handle: Any, options: dict[str, Any], error: type[CFQueueError], text: str
) -> None:
    with pytest.raises(error, match=text):
        handle.apply_async([1], **options)
    assert handle.queue.metrics().backlog_count == 0


def test_links_chords_and_chains_are_refused_at_send(cf: CFQueue, handle: Any) -> None:
    app = cf.app
    app.conf.result_backend = "cache+memory://"

    @app.task(name="after", shared=False)
    def after(*_: Any) -> None: ...

    task = handle.task
    for send in (
        lambda: handle.apply_async([1], link=after.s()),
        lambda: handle.apply_async([1], link_error=after.s()),
        lambda: handle.apply_async([1], chord=after.s()),
        lambda: chain(task.s(1), after.s()).apply_async(),
        lambda: chord([task.s(1), task.s(2)], after.s()).apply_async(),
        lambda: task.s(1).set(link=after.s()).apply_async(),
    ):
        with pytest.raises(InvalidMessage, match="has no result to pass on"):
            send()
    assert handle.queue.metrics().backlog_count == 0


def test_a_signature_and_a_group_send_messages(handle: Any) -> None:
    handle.task.s({"n": 1}).apply_async()
    group(handle.task.s({"n": n}) for n in (2, 3)).apply_async()
    assert [m.body for m in handle.queue.peek()] == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_celerys_own_options_do_no_harm(handle: Any) -> None:
    result = handle.apply_async(
        ["x"], task_id="my-own-id", queue="elsewhere", routing_key="r", exchange="e", serializer="pickle",
        retry=True, compression="gzip", headers={"x-own": 1},
    )  # fmt: skip
    assert result.id == "my-own-id"
    [message] = handle.queue.peek()
    assert (message.id, message.body, message.headers["x-own"]) == ("my-own-id", "x", 1)


# Errors of the broker


class Failing:
    """A broker whose publish ends as it is told."""

    family = "failing"

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.timeouts: list[float | None] = []

    def publish(self, messages: list[OutgoingMessage], *, timeout: float | None = None) -> None:
        self.timeouts.append(timeout)
        raise self.error


@pytest.mark.parametrize("kind", [SendUncertain, BrokerUnavailable, BrokerFull])
def test_what_the_broker_says_is_never_swallowed(kind: type[CFQueueError]) -> None:
    broker = Failing(kind("as it is"))
    queue = Queue("jobs", lambda: broker)  # type: ignore[arg-type,return-value]
    with pytest.raises(kind, match="as it is"):
        queue.send("x", timeout=1.5)
    with pytest.raises(kind, match="as it is"):
        queue.send_batch([{"body": 1}])
    assert broker.timeouts == [1.5, None]


@pytest.mark.parametrize("limit", [0, 101, -1, True, "5", 1.0, None])
def test_peek_takes_1_to_100(queue: Queue, limit: Any) -> None:
    with pytest.raises(InvalidMessage, match="1 to 100"):
        queue.peek(limit)


def test_a_broker_url_without_a_driver_says_what_to_do() -> None:
    cf = CFQueue(Celery("other", broker="sqs://", set_as_current=False))
    with pytest.raises(ConfigurationError, match="cfqueue_broker_url"):
        cf.queues["jobs"].send(1)
