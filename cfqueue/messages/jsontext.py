"""JSON as it travels: compact UTF-8 out, and in only what cannot hurt the worker.

Neither direction lets NaN, Infinity or more than ``MAX_JSON_DEPTH`` levels through.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NoReturn
from uuid import UUID

from cfqueue.errors import DecodeFailed, InvalidBody
from cfqueue.limits import MAX_JSON_DEPTH
from cfqueue.messages.texts import lone_surrogate, middle_cut, shown

_BRACKETS_AND_QUOTES = b'[]{}"'
_ALL_ELSE = bytes(set(range(256)) - set(_BRACKETS_AND_QUOTES))
_BRACES_AS_BRACKETS = bytes.maketrans(b"{}", b"[]")
# A string of which only brackets are left, closed or running to the end of the text.
_STRING = re.compile(rb'"[^"]*(?:"|\Z)')


def nesting(text: str) -> int:
    """Return how deep arrays and objects are nested in a JSON text, without parsing it.

    Brackets inside strings do not count. In a text whose brackets are unbalanced (which no parser accepts)
    the ones left open count in full. Counting ends one past ``MAX_JSON_DEPTH``.
    """
    data = text.encode("utf-8", "surrogatepass")
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Taking two adjacent quotes away never changes what is inside a string and what is not.
    data = data.translate(_BRACES_AS_BRACKETS, _ALL_ELSE).replace(b'""', b"")
    brackets = _STRING.sub(b"", data) if b'"' in data else data
    depth = 0
    while brackets and depth <= MAX_JSON_DEPTH:  # every turn takes the innermost level away
        inner = brackets.replace(b"[]", b"")
        if len(inner) == len(brackets):
            return depth + brackets.count(b"[")
        brackets = inner
        depth += 1
    return depth


def too_deep(text: str) -> bool:
    """Whether a JSON text is nested more than ``MAX_JSON_DEPTH`` levels deep."""
    # Fewer brackets than that cannot be nested deeper: the usual text is not looked at again.
    return text.count("[") + text.count("{") > MAX_JSON_DEPTH and nesting(text) > MAX_JSON_DEPTH


def parse_json(text: str, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Parse JSON that somebody else wrote.

    Args:
        text: the JSON text.
        hook: called with every object, as ``json.loads``'s ``object_hook``.

    Raises:
        DecodeFailed: it is not JSON, contains NaN or Infinity, is nested deeper than ``MAX_JSON_DEPTH``, or
            has a whole number of more digits than Python converts (4,300).

    """
    if too_deep(text):
        raise DecodeFailed(
            f"The JSON is nested more than {MAX_JSON_DEPTH} levels deep; that much is read at most."
        )
    decoder = _DECODER if hook is None else json.JSONDecoder(object_hook=hook, parse_constant=_refuse)
    try:
        return decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise DecodeFailed(f"The body is not JSON: {error}") from None


def _refuse(constant: str) -> NoReturn:
    raise DecodeFailed(f"The body is not JSON: {constant} is no JSON value.")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def encode_json(body: object) -> bytes:
    """Encode ``body`` as compact UTF-8.

    Raises:
        InvalidBody: it cannot be; the text names the place (``$.a[3]``).

    """
    try:
        text = _ENCODER.encode(body)
        data = text.encode()
    except (TypeError, ValueError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
        raise InvalidBody(_why_not_json(body, error)) from None
    if too_deep(text):
        raise InvalidBody(_TOO_DEEP)
    return data


def iso(moment: datetime) -> str:
    """Write a date in ISO 8601; in UTC as JavaScript's ``Date.toJSON`` does, when nothing is lost by it."""
    if moment.tzinfo is not UTC and moment.utcoffset() != timedelta(0):
        return moment.isoformat()
    text = moment.isoformat(timespec="microseconds" if moment.microsecond % 1000 else "milliseconds")
    return text.removesuffix("+00:00") + "Z"


def _plain(value: object) -> str:
    """Turn what ``json`` cannot write by itself into a string."""
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)

_NOT_JSON = "The body cannot be encoded as JSON: "
_TOO_DEEP = (
    f"The body is nested more than {MAX_JSON_DEPTH} levels deep; that much is sent at most. "
    "Flatten it, or send it as bytes."
)


def _why_not_json(body: object, error: Exception) -> str:
    """Find the place that ``json`` refused; only called when something was refused."""
    waiting: list[tuple[str, object, tuple[int, ...]]] = [("$", body, ())]
    while waiting:
        place, value, parents = waiting.pop()
        reason = _refused(place, value)
        if reason is not None:
            return reason
        if not isinstance(value, dict | list | tuple):
            continue
        if id(value) in parents:
            return f"The body contains itself at {middle_cut(place)}. Send a copy without the cycle."
        if len(parents) >= MAX_JSON_DEPTH:
            return _TOO_DEEP
        inside = (*parents, id(value))
        if isinstance(value, dict):
            for key in value:
                reason = _refused_key(place, key)
                if reason is not None:
                    return reason
            waiting.extend((f"{place}.{key}", item, inside) for key, item in reversed(value.items()))
        else:
            waiting.extend((f"{place}[{at}]", item, inside) for at, item in reversed(list(enumerate(value))))
    return f"{_NOT_JSON}{error}."


def _refused_key(place: str, key: object) -> str | None:
    if key is None or isinstance(key, str | int | float):
        return _refused(f"a key of {place}", key)
    kind = type(key).__name__
    return f"{_NOT_JSON}the key {shown(key)} of {middle_cut(place)} is of type {kind}. Use str keys."


def _refused(place: str, value: object) -> str | None:
    """Say why this one value cannot be JSON; None when it can."""
    where = middle_cut(place)
    reason = ""
    if value is None or isinstance(value, dict | list | tuple | date | time | UUID):
        pass
    elif isinstance(value, float):
        if not math.isfinite(value):
            reason = f"{where} is {value!r}, which JSON does not have. Send None or a string."
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            reason = lone_surrogate(where, value, error.start)
    elif isinstance(value, int):
        try:
            int.__repr__(value)
        except ValueError:
            reason = f"{where} is an int of more digits than Python writes (4,300). Send it as bytes."
    elif place == "$" and isinstance(value, bytes | bytearray | memoryview):
        reason = f'{where} is of type {type(value).__name__}. Use content_type="bytes".'
    else:
        reason = (
            f"{where} is of type {type(value).__name__}. Send what json.dumps takes, dates or UUIDs; "
            "turn anything else into those first."
        )
    return _NOT_JSON + reason if reason else None
