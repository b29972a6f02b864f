"""Bodies and the arguments of a send: what is allowed, how it is encoded, how it is read back.

Everything is refused before anything is sent, with a text that says what was wrong, the value, what is
allowed, and what to do.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, cast

from cfqueue.errors import (
    DecodeFailed,
    InvalidBody,
    InvalidContentType,
    InvalidDelay,
    InvalidPriority,
    InvalidQueueName,
)
from cfqueue.limits import CLOUDFLARE, MAX_QUEUE_NAME_LENGTH, PRIORITY_RANGE, Limits
from cfqueue.messages.jsontext import encode_json, parse_json
from cfqueue.messages.texts import lone_surrogate, shown

ContentType = Literal["json", "text", "bytes"]

CONTENT_TYPES: Final[frozenset[str]] = frozenset(("json", "text", "bytes"))

_QUEUE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?", re.ASCII)


def content_type_of(value: object) -> ContentType:
    """Return the content type that ``value`` names, whatever its case (as workerd does).

    Raises:
        InvalidContentType: it is none of ``json``, ``text`` and ``bytes``.

    """
    if value in CONTENT_TYPES:  # the usual case first; the tests below are for the error text
        return cast("ContentType", value)
    if not isinstance(value, str):
        raise InvalidContentType(
            f"A content type is a string, but {value!r} ({type(value).__name__}) was given. "
            'Use "json", "text" or "bytes".'
        )
    name = value.lower()
    if name in CONTENT_TYPES:
        return cast("ContentType", name)
    if name == "v8":
        raise InvalidContentType(
            'Content type "v8" is the structured clone of the JavaScript engine; Python can neither write '
            'nor read it. Use "json" for data, or "bytes" with a serializer of your own.'
        )
    raise InvalidContentType(
        f'Unsupported queue message content type: {value!r}. Use "json", "text" or "bytes".'
    )


def encode_body(body: object, content_type: ContentType) -> bytes:
    """Encode ``body``; the length of the result is what counts against the size limits.

    ``json`` takes what ``json.dumps`` takes, plus dates, times and UUIDs, which become strings (a date with
    a time in UTC is written as JavaScript writes it, ``2024-01-01T00:00:00.000Z``). ``text`` takes a ``str``;
    ``bytes`` takes ``bytes``, ``bytearray`` or ``memoryview``.

    Raises:
        InvalidBody: the body cannot be encoded so; for ``json`` the text names the place (``$.a[3]``).

    """
    if content_type == "json":
        return encode_json(body)
    if content_type == "text":
        if not isinstance(body, str):
            raise InvalidBody(
                f'Content type "text" takes a str, but the body is of type {type(body).__name__}. '
                'Pass str(body), or use content_type="json".'
            )
        try:
            return body.encode()
        except UnicodeEncodeError as error:
            raise InvalidBody(lone_surrogate("the body", body, error.start)) from None
    if isinstance(body, bytes):
        return body
    if isinstance(body, bytearray | memoryview):
        return bytes(body)
    raise InvalidBody(
        f'Content type "bytes" takes bytes, bytearray or memoryview, but the body is of type '
        f'{type(body).__name__}. Encode it first, or use content_type="json".'
    )


def decode_body(data: bytes, content_type: ContentType) -> Any:
    """Return the body that ``data`` encodes.

    Raises:
        DecodeFailed: the bytes are not what the content type says.

    """
    if content_type == "bytes":
        return data
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise DecodeFailed(
            f"The body is not UTF-8: byte {data[error.start]:#04x} at offset {error.start}."
        ) from None
    return text if content_type == "text" else parse_json(text)


def check_delay(value: object, *, what: str, limits: Limits = CLOUDFLARE) -> int | None:
    """Return ``value`` if it is a delay in seconds, or None when none was given.

    Args:
        value: a whole number from 0 to ``limits.delay_seconds``, or None.
        what: how the user calls it, for the error text (``"delay_seconds"``).
        limits: the limits that apply.

    Raises:
        InvalidDelay: it is a boolean, a fraction, a string, or out of range.

    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidDelay(
            f"{what} is a whole number of seconds from 0 to {limits.delay_seconds}, but {value!r} "
            f"({type(value).__name__}) was given. JavaScript would coerce it silently (1.5 to 1, "
            '"5" to 5, "x" to 0); cfqueue does not: pass an int.'
        )
    if not 0 <= value <= limits.delay_seconds:
        raise InvalidDelay(
            f"{what} is a whole number of seconds from 0 to {limits.delay_seconds} "
            f"({limits.delay_seconds / 3600:g} hours), but {shown(value)} was given. "
            "Send the message later, or from a schedule, when it has to wait longer."
        )
    return value


def check_priority(value: object) -> int:
    """Return ``value`` if it is a priority: 0 (delivered last) to 9 (delivered first).

    Raises:
        InvalidPriority: it is not such a whole number.

    """
    low, high = PRIORITY_RANGE
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidPriority(
            f"A priority is a whole number from {low} (delivered last) to {high} (delivered first), but "
            f"{shown(value)} ({type(value).__name__}) was given."
        )
    return value


def check_queue_name(name: object) -> str:
    """Return ``name`` if a queue can be called so, by Cloudflare's rule.

    Raises:
        InvalidQueueName: it is not 1 to 63 letters, digits and dashes with no dash at either end.

    """
    if isinstance(name, str) and len(name) <= MAX_QUEUE_NAME_LENGTH and _QUEUE_NAME.fullmatch(name):
        return name
    if not isinstance(name, str):
        found = f"it is of type {type(name).__name__}"
    elif not name:
        found = "it is empty"
    elif len(name) > MAX_QUEUE_NAME_LENGTH:
        found = f"it has {len(name)} characters"
    elif strange := re.search(r"[^A-Za-z0-9-]", name):
        found = f"it contains {strange.group()!r}"
    else:
        found = "it starts or ends with a dash"
    raise InvalidQueueName(
        f"{shown(name)} is not a queue name: {found}. A queue name is 1 to {MAX_QUEUE_NAME_LENGTH} letters "
        "(a-z, A-Z), digits and dashes, and starts and ends with a letter or digit."
    )
