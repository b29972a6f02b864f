"""The wire form: what is written, and reading it back from anybody."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from hypothesis import example, given
from hypothesis import strategies as st
from kombu.serialization import dumps, loads

from cfqueue.errors import BadArguments, DecodeFailed, MessageTooLarge
from cfqueue.limits import MAX_ERROR_MESSAGE_CHARS, MAX_HEADER_BYTES, MAX_TRACEBACK_CHARS, Limits
from cfqueue.messages import (
    DEAD_LETTER_HEADERS,
    Delivery,
    ErrorInfo,
    Message,
    OutgoingMessage,
    build_message,
    dead_letter_headers,
    encode_body,
    known_version,
    read_message,
)

NOW = 1_767_225_600_123

plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain, inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def celery() -> Celery:
    return Celery("test", broker="memory://")


def deliver(message: OutgoingMessage, **changes: Any) -> Delivery:
    """As a broker would: headers and body have been text in between."""
    fields: dict[str, Any] = {
        "queue": message.queue,
        "id": message.id,
        "headers": json.loads(json.dumps(message.headers)),
        "body": message.body,
        **changes,
    }
    return Delivery(**fields)


def delivery(body: Any, headers: Any = None, **changes: Any) -> Delivery:
    task = {"task": "cfqueue.queue.jobs"}
    return Delivery("jobs", "an-id", task if headers is None else headers, body, timestamp_ms=NOW, **changes)


class TestBuilding:
    def test_the_headers_are_celerys_and_ours(self, celery: Celery) -> None:
        built = build_message("jobs", 1, timestamp_ms=NOW)
        theirs = celery.amqp.as_task_v2(
            built.id, "cfqueue.queue.jobs", ([1],), {}, ignore_result=True
        ).headers
        ours = {name for name in built.headers if name.startswith("cfq-")}
        assert built.headers.keys() - ours == theirs.keys()
        assert ours == {"cfq-version", "cfq-content-type", "cfq-timestamp", "cfq-attempts"}
        same = theirs.keys() - {"argsrepr"}
        assert {name: built.headers[name] for name in same} == {name: theirs[name] for name in same}

    def test_celery_reads_the_body(self) -> None:
        built = build_message("jobs", {"a": [1]}, timestamp_ms=NOW)
        embedded = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        assert loads(built.body, "application/json", "utf-8") == [[{"a": [1]}], {}, embedded]

    def test_ids_are_32_hexadecimal_digits_or_the_given_one(self) -> None:
        made = build_message("jobs", 1, timestamp_ms=NOW).id
        assert len(made) == 32
        assert int(made, 16)
        given_one = build_message("jobs", 1, timestamp_ms=NOW, message_id="abc")
        assert given_one.id == given_one.headers["id"] == given_one.headers["root_id"] == "abc"

    def test_messages_share_nothing(self) -> None:
        first, second = (build_message("jobs", 1, timestamp_ms=NOW) for _ in range(2))
        first.headers["stamps"]["a"] = first.headers["timelimit"][0] = 1
        assert second.headers["stamps"] == {}
        assert second.headers["timelimit"] == [None, None]

    def test_what_is_carried_along(self) -> None:
        built = build_message(
            "jobs",
            1,
            timestamp_ms=NOW,
            delay_seconds=5,
            priority=3,
            expires_ms=NOW,
            ignore_result=False,
            headers={"cfq-trace": "x", "group": "g"},
        )
        assert (built.delay_seconds, built.priority, built.expires_ms) == (5, 3, NOW)
        assert datetime.fromisoformat(built.headers["expires"]).timestamp() * 1000 == pytest.approx(NOW)
        assert built.headers["ignore_result"] is False
        assert (built.headers["cfq-trace"], built.headers["group"]) == ("x", "g")

    @pytest.mark.parametrize(
        ("content_type", "body"),
        [("text", "x" * 128_000), ("json", "x" * 127_998), ("bytes", b"x" * 128_000)],
    )
    def test_the_limit_counts_encoded_bytes(self, content_type: str, body: Any) -> None:
        assert build_message("jobs", body, content_type, timestamp_ms=NOW).size == 128_000
        with pytest.raises(MessageTooLarge, match="message length of 128001 bytes exceeds limit of 128000"):
            build_message("jobs", body + body[:1], content_type, timestamp_ms=NOW)
        limits = Limits(message_bytes=128_001)
        assert (
            build_message("jobs", body + body[:1], content_type, timestamp_ms=NOW, limits=limits).size
            == 128_001
        )

    def test_characters_count_by_their_bytes(self) -> None:
        with pytest.raises(MessageTooLarge, match="128002 bytes"):
            build_message("jobs", "ä" * 64_001, "text", timestamp_ms=NOW)


class TestRoundTrip:
    @given(json_values)
    @example({"__type__": "date", "__value__": "2024-01-01"})
    @example('], {}, {"callbacks":null')
    def test_json(self, body: Any) -> None:
        message = read_message(deliver(build_message("jobs", body, timestamp_ms=NOW)))
        assert message.body == body
        assert message.content_type == "json"

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_text(self, body: str) -> None:
        message = read_message(deliver(build_message("jobs", body, "text", timestamp_ms=NOW)))
        assert (message.body, message.content_type) == (body, "text")

    @given(st.binary())
    def test_bytes(self, body: bytes) -> None:
        message = read_message(deliver(build_message("jobs", body, "bytes", timestamp_ms=NOW)))
        assert (message.body, message.content_type) == (body, "bytes")

    def test_everything_else(self) -> None:
        built = build_message("jobs", 1, timestamp_ms=NOW)
        message = read_message(deliver(built, attempts=3, timestamp_ms=5))
        assert isinstance(message, Message)
        assert (message.id, message.queue, message.attempts) == (built.id, "jobs", 3)
        assert message.timestamp == datetime(2026, 1, 1, 0, 0, 0, 123_000, tzinfo=UTC)
        assert message.headers["cfq-timestamp"] == NOW
        with pytest.raises(TypeError):
            message.headers["x"] = 1  # type: ignore[index]

    def test_a_body_of_bytes_from_the_broker(self) -> None:
        built = build_message("jobs", "ä", timestamp_ms=NOW)
        assert read_message(deliver(built, body=built.body.encode())).body == "ä"

    def test_a_delivery_can_be_pickled(self) -> None:
        whole = deliver(build_message("jobs", 1, timestamp_ms=NOW), tag=(5, "token"))
        assert pickle.loads(pickle.dumps(whole)) == whole


class TestOtherPrograms:
    def sent(self, celery: Celery, *args: Any, **kwargs: Any) -> Delivery:
        task = celery.amqp.as_task_v2("an-id", "cfqueue.queue.jobs", args, kwargs)
        content_type, encoding, body = dumps(task.body, serializer="json")
        return delivery(body, task.headers, body_content_type=content_type, body_encoding=encoding)

    def test_celery_send_task(self, celery: Celery) -> None:
        message = read_message(self.sent(celery, {"a": [1, "ä"]}))
        assert message.body == {"a": [1, "ä"]}
        assert (message.content_type, message.attempts) == ("json", 1)
        assert message.timestamp.timestamp() == pytest.approx(NOW / 1000)

    def test_kombus_typed_values_become_plain_ones(self, celery: Celery) -> None:
        typed = [datetime(2024, 1, 1, tzinfo=UTC), date(2024, 1, 2), UUID(int=7), Decimal("1.50")]
        assert read_message(self.sent(celery, typed)).body == [
            "2024-01-01T00:00:00+00:00",
            "2024-01-02",
            "00000000-0000-0000-0000-000000000007",
            "1.50",
        ]

    @pytest.mark.parametrize("body", [b"abc", b"\xff\x00"])
    def test_bytes_from_celery(self, celery: Celery, body: bytes) -> None:
        message = read_message(self.sent(celery, body))
        assert (message.body, message.content_type) == (body, "bytes")

    @pytest.mark.parametrize(
        "value",
        [
            {"__type__": "uuid", "__value__": 5},
            {"__type__": "datetime", "__value__": None},
            {"__type__": "base64", "__value__": "%"},
            {"__type__": "else", "__value__": 1},
            {"__type__": [], "__value__": 1},
        ],
    )
    def test_what_only_looks_typed_stays_as_it_is(self, value: Any) -> None:
        assert read_message(delivery(json.dumps([[value], {}, {}]))).body == value

    @pytest.mark.parametrize(
        ("args", "kwargs", "text"),
        [((), {}, "has 0"), ((1, 2), {}, "has 2"), ((1,), {"a": 1}, r"keywords \['a'\]")],
    )
    def test_any_other_number_of_arguments(self, celery: Celery, args: Any, kwargs: Any, text: str) -> None:
        with pytest.raises(BadArguments, match=text) as caught:
            read_message(self.sent(celery, *args, **kwargs))
        assert caught.value.reason == "bad_arguments"

    def test_several_arguments_behind_our_own_headers(self) -> None:
        built = build_message("jobs", 1, timestamp_ms=NOW)
        with pytest.raises(BadArguments, match="has 2"):
            read_message(deliver(built, body=built.body.replace("[[1]", "[[1, 2]")))

    def test_our_own_body_is_never_taken_for_a_typed_value_however_it_was_rewritten(self) -> None:
        body = {"__type__": "date", "__value__": "2024-01-01"}
        rewritten = ours(json.dumps([[body], {}, {}], indent=1))
        assert read_message(rewritten).body == body

    def test_a_task_of_somebody_elses(self) -> None:
        with pytest.raises(BadArguments, match=r"shop\.tasks\.add"):
            read_message(delivery("[[1], {}, {}]", {"task": "shop.tasks.add"}))

    def test_a_dead_letter_keeps_the_task_of_its_origin(self) -> None:
        built = build_message("jobs", 1, timestamp_ms=NOW)
        assert read_message(deliver(built, queue="jobs-dlq")).body == 1

    @pytest.mark.parametrize(
        ("content_type", "raw", "body", "kind"),
        [
            ("application/json", '{"a": 1}', {"a": 1}, "json"),
            ("application/json; charset=utf-8", b"[1]", [1], "json"),
            ("", "null", None, "json"),
            ("text/plain", "hello", "hello", "text"),
            ("application/octet-stream", b"\xff\x00", b"\xff\x00", "bytes"),
        ],
    )
    def test_a_raw_message(self, content_type: str, raw: Any, body: Any, kind: str) -> None:
        message = read_message(delivery(raw, {}, body_content_type=content_type))
        assert (message.body, message.content_type) == (body, kind)

    def test_json_that_looks_like_celerys_is_a_body_without_the_task_header(self) -> None:
        assert read_message(delivery("[[1], {}, {}]", {})).body == [[1], {}, {}]


def ours(body: str, **headers: Any) -> Delivery:
    built = build_message("jobs", 1, timestamp_ms=NOW, headers=headers)
    return deliver(built, body=body)


class TestHostileInput:
    @pytest.mark.parametrize(
        ("hostile", "text"),
        [
            (delivery(b"\xff\xfe"), "not UTF-8"),
            (delivery("not json"), "not JSON"),
            (delivery("5"), "protocol 2"),
            (delivery("[1, 2, 3]"), "protocol 2"),
            (delivery("[[1], {}]"), "protocol 2"),
            (delivery("[" * 10_000 + "]" * 10_000), "nested"),
            (delivery("[[" + "[" * 10_000 + "], {}, {}]"), "nested"),
            (delivery("[" * 10_000, {}), "nested"),
            (delivery("[[NaN], {}, {}]"), "NaN"),
            (delivery("[[" + "9" * 5000 + "], {}, {}]"), "not JSON"),
            (
                delivery(pickle.dumps(([1], {}, {})), body_content_type="application/x-python-serialize"),
                "pickle",
            ),
            (delivery("!!python/object:os.system", body_content_type="application/x-yaml"), "yaml"),
            (delivery(b"\x80", {}, body_content_type="application/x-python-serialize"), "only JSON"),
            (
                delivery(
                    "[[1], {}, {}]", {"task": "cfqueue.queue.jobs", "compression": "application/x-gzip"}
                ),
                "compressed",
            ),
            (
                delivery("[[1], {}, {}]", {"task": "cfqueue.queue.jobs", "x": "y" * MAX_HEADER_BYTES}),
                "headers",
            ),
            (
                delivery("[[1], {}, {}]", {"task": "cfqueue.queue.jobs", "x": ["y"] * MAX_HEADER_BYTES}),
                "headers",
            ),
            (
                delivery("[[1], {}, {}]", {"task": "cfqueue.queue.jobs", "x": "ä" * (MAX_HEADER_BYTES // 2)}),
                "headers",
            ),
            (delivery("[[1], {}, {}]", {f"h{i}": {"a": ["b" * 90]} for i in range(800)}), "headers"),
            (delivery("[[1], {}, {}]", {5: 1}), "header"),
            (delivery("[[1], {}, {}]", []), "headers are of type list"),
            (delivery(None), "NoneType"),
            (delivery("1", {}, body_content_type=7), "content type"),
            (delivery("1", {}, attempts=0), "attempts"),
            (delivery("1", {}, attempts="2"), "attempts"),
            (Delivery("jobs", "", {}, "1"), "id"),
            (Delivery("jobs", 5, {}, "1"), "id"),  # type: ignore[arg-type]
            (Delivery("jobs", "a", {}, "1", timestamp_ms=10**30), "out of range"),
            (ours("[[1], {}, {}]", **{"cfq-content-type": 5}), "cfq-content-type"),
            (ours("[[1], {}, {}]", **{"cfq-content-type": "v8"}), "cfq-content-type"),
            (ours("[[1], {}, {}]", **{"cfq-content-type": ["json"]}), "cfq-content-type"),
            (ours("[[1], {}, {}]", **{"cfq-content-type": "text"}), "of type int"),
            (ours("[[1], {}, {}]", **{"cfq-content-type": "bytes"}), "of type int"),
            (ours('[["%"], {}, {}]', **{"cfq-content-type": "bytes"}), "base64"),
            (ours('[["ä"], {}, {}]', **{"cfq-content-type": "bytes"}), "base64"),
            (ours("[[1], {}, {}]", **{"cfq-timestamp": "now"}), "cfq-timestamp"),
            (ours("[[1], {}, {}]", **{"cfq-timestamp": True}), "cfq-timestamp"),
            (ours("[[1], {}, {}]", **{"cfq-timestamp": 10**300}), "out of range"),
        ],
    )
    def test_is_refused_with_a_reason(self, hostile: Delivery, text: str) -> None:
        with pytest.raises(DecodeFailed, match=text) as caught:
            read_message(hostile)
        assert caught.value.reason == "decode_failed"
        assert len(str(caught.value)) < 400

    @pytest.mark.parametrize("task", [None, 5, [], "", "cfqueue.queue", {"a": 1}])
    def test_a_strange_task_header(self, task: Any) -> None:
        with pytest.raises(BadArguments):
            read_message(delivery("[[1], {}, {}]", {"task": task}))

    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    values = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
    headers = st.dictionaries(
        st.sampled_from(
            ["task", "cfq-version", "cfq-content-type", "cfq-timestamp", "id", "compression", "x"]
        ),
        st.sampled_from(["cfqueue.queue.jobs", "json", "text", "bytes", "1", 5]) | values,
        max_size=6,
    )
    bodies = (
        st.binary()
        | st.text()
        | st.text(st.sampled_from('[]{}",:\\1antulNI'), max_size=30)
        | json_values.map(json.dumps)
        | st.lists(json_values, max_size=3).map(lambda args: json.dumps([args, {}, {}]))
        | values
    )

    @given(
        headers | values,
        bodies,
        st.sampled_from(["application/json", "text/plain", "application/data", "application/x-yaml", ""])
        | values,
        st.integers(-1, 3) | values,
        st.integers() | values,
    )
    def test_nothing_else_ever_comes_out(
        self, headers: Any, body: Any, content_type: Any, attempts: Any, timestamp_ms: Any
    ) -> None:
        try:
            message = read_message(
                Delivery(
                    "jobs",
                    "an-id",
                    headers,
                    body,
                    body_content_type=content_type,
                    attempts=attempts,
                    timestamp_ms=timestamp_ms,
                )
            )
        except (DecodeFailed, BadArguments):
            return
        assert message.attempts >= 1


class TestVersion:
    @pytest.mark.parametrize(
        ("headers", "known"),
        [
            ({}, True),
            ({"cfq-version": None}, True),
            ({"cfq-version": "1"}, True),
            ({"cfq-version": 1}, True),
            ({"cfq-version": "1.7"}, True),
            ({"cfq-version": "2"}, False),
            ({"cfq-version": "10"}, False),
            ({"cfq-version": ""}, False),
            ({"cfq-version": []}, False),
        ],
    )
    def test_an_unknown_major_version_is_left_alone(self, headers: dict[str, Any], known: bool) -> None:
        assert known_version(headers) is known

    def test_ours_is_known(self) -> None:
        assert known_version(build_message("jobs", 1, timestamp_ms=NOW).headers)


class TestDeadLetterHeaders:
    def test_what_they_say(self) -> None:
        error = ErrorInfo("ValueError", "no", "Traceback …")
        assert dead_letter_headers("retries_exhausted", "jobs", 4, 5, 9, error) == {
            "cfq-reason": "retries_exhausted",
            "cfq-error-type": "ValueError",
            "cfq-error-message": "no",
            "cfq-traceback": "Traceback …",
            "cfq-failed-attempts": 4,
            "cfq-origin": "jobs",
            "cfq-first-failure": 5,
            "cfq-last-failure": 9,
        }

    def test_without_an_error_and_at_the_first_failure(self) -> None:
        headers = dead_letter_headers("expired", "jobs", 1, None, 9, None)
        assert tuple(headers) == DEAD_LETTER_HEADERS
        assert headers["cfq-error-message"] is None
        assert headers["cfq-first-failure"] == 9

    @given(st.text(max_size=50), st.integers(1, 200))
    def test_texts_are_bounded_and_can_be_written(self, text: str, times: int) -> None:
        error = ErrorInfo(text * times, "\ud800" + text * times, "\U0001f600" * 9000)
        headers = dead_letter_headers("crashed", "jobs", 1, None, 9, error)
        assert len(headers["cfq-error-message"]) <= MAX_ERROR_MESSAGE_CHARS
        assert len(headers["cfq-traceback"]) <= MAX_TRACEBACK_CHARS
        encode_body(headers, "json")


class TestErrorInfo:
    def test_of_an_exception(self) -> None:
        try:
            raise DecodeFailed("why")
        except DecodeFailed as error:
            info = ErrorInfo.of(error)
        assert (info.type, info.message) == ("cfqueue.errors.DecodeFailed", "why")
        assert info.traceback is not None
        assert "test_of_an_exception" in info.traceback
        assert ErrorInfo.of(ValueError("x"), with_traceback=False) == ErrorInfo("ValueError", "x")

    def test_keeps_the_end_of_a_long_traceback(self) -> None:
        def deeper(n: int) -> None:
            if not n:
                raise ValueError("the cause")
            deeper(n - 1)

        try:
            deeper(300)
        except ValueError as error:
            info = ErrorInfo.of(error)
        assert info.traceback is not None
        assert info.traceback.endswith("ValueError: the cause\n")
        assert len(info.traceback) <= MAX_TRACEBACK_CHARS

    def test_never_raises(self) -> None:
        class WorstError(Exception):
            def __str__(self) -> str:
                raise RuntimeError("not even that")

        assert "cannot be printed" in ErrorInfo.of(WorstError()).message
