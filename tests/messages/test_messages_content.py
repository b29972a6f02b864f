"""What can be sent, how it is encoded, and what is said about the rest."""

from __future__ import annotations

import json
import math
import time as clocks
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfqueue.errors import (
    DecodeFailed,
    InvalidBody,
    InvalidContentType,
    InvalidDelay,
    InvalidPriority,
    InvalidQueueName,
)
from cfqueue.limits import CLOUDFLARE, MAX_JSON_DEPTH, Limits
from cfqueue.messages import (
    check_delay,
    check_priority,
    check_queue_name,
    content_type_of,
    decode_body,
    encode_body,
)
from cfqueue.messages.jsontext import nesting

plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain, inner, max_size=4),
    max_leaves=20,
)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


class TestContentType:
    @pytest.mark.parametrize("name", ["json", "text", "bytes"])
    def test_is_case_insensitive(self, name: str) -> None:
        assert content_type_of(name) == content_type_of(name.upper()) == name

    @pytest.mark.parametrize(
        ("value", "text"), [("xml", "'xml'"), ("V8", "structured clone"), (None, "None"), (5, "5")]
    )
    def test_anything_else_is_refused(self, value: object, text: str) -> None:
        with pytest.raises(InvalidContentType, match=text) as caught:
            content_type_of(value)
        assert '"json"' in str(caught.value)  # what to do


class TestJSON:
    @given(json_values)
    def test_round_trip(self, body: Any) -> None:
        assert decode_body(encode_body(body, "json"), "json") == body

    def test_is_compact_utf8(self) -> None:
        assert encode_body({"ä": [1, None, True]}, "json") == '{"ä":[1,null,true]}'.encode()

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01T00:00:00.000Z"),
            (datetime(2024, 1, 1, 0, 0, 0, 5000, tzinfo=timezone(timedelta(0))), "2024-01-01T00:00:00.005Z"),
            (datetime(2024, 1, 1, 0, 0, 0, 5, tzinfo=UTC), "2024-01-01T00:00:00.000005Z"),
            (datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=2))), "2024-01-01T00:00:00+02:00"),
            (datetime(2024, 1, 1), "2024-01-01T00:00:00"),  # noqa: DTZ001
            (date(2024, 1, 1), "2024-01-01"),
            (time(12, 30), "12:30:00"),
            (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        ],
    )
    def test_dates_and_uuids_become_strings(self, value: object, text: str) -> None:
        assert json.loads(encode_body({"at": value}, "json")) == {"at": text}
        if isinstance(value, datetime):
            assert datetime.fromisoformat(text) == value

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            ({"a": [1, 2, {3}]}, r"\$\.a\[2\] is of type set"),
            ({"a": {"b": math.nan}}, r"\$\.a\.b is nan"),
            ([1, math.inf], r"\$\[1\] is inf"),
            ({"a": ["\ud800"]}, r"\$\.a\[0\] contains a lone surrogate, U\+D800 at offset 0"),
            ({"\udc01": 1}, r"a key of \$ contains a lone surrogate"),
            ({(1, 2): 1}, r"the key \(1, 2\) of \$ is of type tuple"),
            ({"a": {math.nan: 1}}, r"a key of \$\.a is nan"),
            (object(), r"\$ is of type object"),
            (b"abc", 'content_type="bytes"'),
            ({"a": b"abc"}, r"\$\.a is of type bytes"),
            ([10**5000], r"\$\[0\] is an int of more digits"),
        ],
    )
    def test_what_cannot_be_encoded_is_refused_with_its_place(self, body: object, text: str) -> None:
        with pytest.raises(InvalidBody, match=text):
            encode_body(body, "json")

    def test_a_body_that_contains_itself(self) -> None:
        body: dict[str, Any] = {"list": []}
        body["list"].append(body)
        with pytest.raises(InvalidBody, match=r"contains itself at \$\.list\[0\]"):
            encode_body(body, "json")

    def test_nesting_up_to_the_limit(self) -> None:
        assert decode_body(encode_body(nested(MAX_JSON_DEPTH), "json"), "json") == nested(MAX_JSON_DEPTH)

    @pytest.mark.parametrize("depth", [MAX_JSON_DEPTH + 1, 900, 10_000])
    def test_nesting_beyond_the_limit(self, depth: int) -> None:
        with pytest.raises(InvalidBody, match=f"more than {MAX_JSON_DEPTH} levels"):
            encode_body(nested(depth), "json")
        with pytest.raises(DecodeFailed, match=f"more than {MAX_JSON_DEPTH} levels"):
            decode_body(b"[" * depth + b"]" * depth, "json")

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{",
            b"nul",
            b"NaN",
            b"[Infinity]",
            b'{"a":-Infinity}',
            b"\xff",
            b"[1]x",
            b"\xef\xbb\xbf1",
            b"1" * 5000,
        ],
    )
    def test_what_is_not_json_is_not_read(self, data: bytes) -> None:
        with pytest.raises(DecodeFailed):
            decode_body(data, "json")

    def test_of_equal_keys_the_last_counts_as_in_javascript(self) -> None:
        assert decode_body(b'{"a":1,"a":2}', "json") == {"a": 2}


def depth_of(value: Any) -> int:
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 0


tricky = st.text(st.sampled_from('[]{}",\\aä'), max_size=8)
bracketed = st.recursive(
    tricky,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(tricky, inner, max_size=3),
    max_leaves=30,
)


class TestNesting:
    @given(bracketed, st.booleans())
    def test_is_that_of_the_parsed_value(self, value: Any, ascii_only: bool) -> None:
        assert nesting(json.dumps(value, ensure_ascii=ascii_only)) == depth_of(value)

    @given(st.text(st.sampled_from('[]{}",\\a1:'), max_size=60))
    def test_never_less_than_what_the_parser_went_through(self, text: str) -> None:
        try:
            value = json.loads(text)
        except ValueError:
            nesting(text)  # any answer will do, but there is one
        else:
            assert nesting(text) == depth_of(value)

    @pytest.mark.parametrize(
        "text",
        ["[", "]", '\\"[', '"', "\\", "[],", '"[",', "{["],
    )
    @pytest.mark.parametrize("start", ["", '"', "[" * MAX_JSON_DEPTH], ids=["plain", "string", "deep"])
    def test_is_quick_whatever_the_text(self, start: str, text: str) -> None:
        begin = clocks.process_time()
        nesting(start + text * 50_000)
        assert clocks.process_time() - begin < 0.5


class TestTextAndBytes:
    @given(plain)
    def test_text(self, body: str) -> None:
        assert decode_body(encode_body(body, "text"), "text") == body

    @pytest.mark.parametrize(
        "body", [b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"xaxbxc")[1::2]]
    )
    def test_bytes(self, body: Any) -> None:
        assert encode_body(body, "bytes") == b"abc"

    @pytest.mark.parametrize("body", [1, None, b"a", ["a"]])
    def test_text_takes_str_only(self, body: object) -> None:
        with pytest.raises(InvalidBody, match=f"takes a str, but the body is of type {type(body).__name__}"):
            encode_body(body, "text")

    @pytest.mark.parametrize("body", [1, None, "a", [1]])
    def test_bytes_takes_bytes_only(self, body: object) -> None:
        with pytest.raises(InvalidBody, match="takes bytes, bytearray or memoryview"):
            encode_body(body, "bytes")

    def test_a_lone_surrogate_is_no_text(self) -> None:
        with pytest.raises(InvalidBody, match=r"U\+DFFF at offset 1"):
            encode_body("a\udfff", "text")

    def test_text_that_is_not_utf8(self) -> None:
        with pytest.raises(DecodeFailed, match="0xff at offset 1"):
            decode_body(b"a\xff", "text")


class TestDelay:
    @pytest.mark.parametrize("value", [None, 0, 1, 86_400])
    def test_allowed(self, value: int | None) -> None:
        assert check_delay(value, what="delay_seconds", limits=CLOUDFLARE) == value

    @pytest.mark.parametrize("value", [True, False, 1.5, 1.0, "5", "x", [], float("nan")])
    def test_what_javascript_would_coerce_is_refused_and_said_so(self, value: object) -> None:
        with pytest.raises(InvalidDelay) as caught:
            check_delay(value, what="delay_seconds", limits=CLOUDFLARE)
        text = str(caught.value)
        assert "JavaScript would coerce" in text
        assert "cfqueue does not" in text
        assert "delay_seconds is a whole number of seconds from 0 to 86400" in text
        assert repr(value) in text

    @pytest.mark.parametrize("value", [-1, 86_401, pytest.param(10**5000, id="huge")])
    def test_out_of_range(self, value: int) -> None:
        with pytest.raises(InvalidDelay, match="from 0 to 86400"):
            check_delay(value, what="delay_seconds", limits=CLOUDFLARE)

    def test_a_deployment_can_raise_it(self) -> None:
        assert check_delay(100_000, what="delay_seconds", limits=Limits(delay_seconds=100_000)) == 100_000


class TestPriority:
    @pytest.mark.parametrize("value", range(10))
    def test_allowed(self, value: int) -> None:
        assert check_priority(value) == value

    @pytest.mark.parametrize("value", [-1, 10, True, 1.0, "1", None])
    def test_refused(self, value: object) -> None:
        with pytest.raises(InvalidPriority, match=r"from 0 .* to 9 "):
            check_priority(value)


class TestQueueName:
    @pytest.mark.parametrize("name", ["a", "jobs", "A-1", "a" * 63, "1", "a--b"])
    def test_allowed(self, name: str) -> None:
        assert check_queue_name(name) == name

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("", "it is empty"),
            ("a b", "contains ' '"),
            ("a.b", r"contains '\.'"),
            ("a" * 64, "64 characters"),
            ("-a", "dash"),
            ("a-", "dash"),
            ("a\n", "contains"),
            ("ä", "contains"),
            ("٣", "contains"),  # a digit, but not 0 to 9
            (None, "NoneType"),
            (b"a", "bytes"),
        ],
    )
    def test_refused(self, name: object, text: str) -> None:
        with pytest.raises(InvalidQueueName, match=text) as caught:
            check_queue_name(name)
        assert "1 to 63 letters" in str(caught.value)

    @settings(max_examples=50)
    @given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", fullmatch=True))
    def test_the_rule(self, name: str) -> None:
        assert check_queue_name(name) == name
