"""What a broker delivered, made into a ``Message`` again, whoever wrote it.

Nothing but ``DecodeFailed`` and ``BadArguments`` comes out of here, whatever the bytes are: such a message is
dead-lettered without using up retries, and the worker goes on.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any, Final, cast
from uuid import UUID

from cfqueue.errors import BadArguments, DecodeFailed
from cfqueue.limits import MAX_HEADER_BYTES
from cfqueue.messages.content import CONTENT_TYPES, ContentType
from cfqueue.messages.envelope import (
    CONTENT_TYPE_HEADER,
    EMBEDDED,
    TASK_PREFIX,
    TIMESTAMP_HEADER,
    Delivery,
)
from cfqueue.messages.jsontext import parse_json
from cfqueue.messages.message import Message, moment
from cfqueue.messages.texts import shown

_JSON: Final = "application/json"
# Header values that need no look inside; a whole number can be long, but is cheap to measure.
_SMALL: Final = frozenset((str, type(None), bool, float))
_CONTAINERS: Final = (list, dict, tuple)
_SIZED: Final = (str, bytes, bytearray, *_CONTAINERS)
_RAW: Final[dict[str, ContentType]] = {
    "": "json",
    _JSON: "json",
    "text/plain": "text",
    "application/octet-stream": "bytes",
    "application/data": "bytes",
}


def read_message(delivery: Delivery) -> Message:
    """Decode what a broker delivered.

    Accepted: our own envelope; a Celery protocol-2 message for a ``cfqueue.queue.…`` task with exactly one
    positional argument (kombu's typed dates become ISO strings); and, without a task header, the payload of
    any other program in JSON, text or bytes.

    Raises:
        DecodeFailed: bytes or headers are not what they claim to be; another attempt would not help.
        BadArguments: a Celery message that does not carry exactly one positional argument for a handler.

    """
    headers = delivery.headers
    _check_headers(headers)
    kind = headers.get(CONTENT_TYPE_HEADER)
    if kind is not None and not (isinstance(kind, str) and kind in CONTENT_TYPES):
        raise DecodeFailed(f"The header {CONTENT_TYPE_HEADER} is {shown(kind)}, not json, text or bytes.")
    if "task" in headers:
        body, kind = _from_celery(delivery, cast("ContentType | None", kind))
    else:
        body, kind = _from_another_program(delivery, cast("ContentType | None", kind))
    timestamp_ms = headers.get(TIMESTAMP_HEADER, delivery.timestamp_ms)
    if type(timestamp_ms) is not int:
        raise DecodeFailed(f"The header {TIMESTAMP_HEADER} is {shown(timestamp_ms)}, not a whole number.")
    try:
        timestamp = moment(timestamp_ms)
    except OverflowError:
        raise DecodeFailed(f"The header {TIMESTAMP_HEADER} is out of range.") from None
    attempts = delivery.attempts
    if type(attempts) is not int or attempts < 1:
        raise DecodeFailed(f"The number of attempts is {shown(attempts)}, not 1 or more.")
    if not delivery.id or not isinstance(delivery.id, str):
        raise DecodeFailed(f"The message id is {shown(delivery.id)}, not a text.")
    return Message(delivery.id, timestamp, body, attempts, kind, delivery.queue, headers)


def _check_headers(headers: object) -> None:
    """Refuse a header section that is too large, without writing it out to see."""
    if not isinstance(headers, dict):
        raise DecodeFailed(f"The headers are of type {type(headers).__name__}, not a mapping.")
    values = headers.values()
    try:
        texts = "".join(headers) + "".join([value for value in values if value.__class__ is str])
    except TypeError:
        raise DecodeFailed("A header has a name that is not a text.") from None
    size = len(texts) if texts.isascii() else len(texts.encode("utf-8", "surrogatepass"))
    nested: list[Any] = [value for value in values if value.__class__ not in _SMALL]
    while nested and size <= MAX_HEADER_BYTES:
        value = nested.pop()
        if not value:
            continue
        if value.__class__ is int:
            size += value.bit_length() // 3
        elif isinstance(value, _SIZED):
            size += len(value)
            if size <= MAX_HEADER_BYTES and isinstance(value, _CONTAINERS):
                nested.extend(value)
                nested.extend(value.values() if isinstance(value, dict) else ())
    if size > MAX_HEADER_BYTES:
        raise DecodeFailed(
            f"The headers are larger than {MAX_HEADER_BYTES} bytes; that much is read at most."
        )


def _from_celery(delivery: Delivery, kind: ContentType | None) -> tuple[Any, ContentType]:
    task = delivery.headers["task"]
    if not isinstance(task, str) or not task.startswith(TASK_PREFIX):
        raise BadArguments(
            f"This is a message for the task {shown(task)}, not for a queue handler ({TASK_PREFIX}…). "
            "Route that task to a queue of its own."
        )
    claimed = _claimed_type(delivery)
    if claimed not in ("", _JSON):
        raise DecodeFailed(_not_accepted(claimed))
    text = _text(delivery)
    value: Any = None
    found = False
    if text.startswith("[[") and text.endswith(EMBEDDED):
        try:
            value = parse_json(text[2 : -len(EMBEDDED)])
            found = True
        except DecodeFailed:
            pass  # several arguments, none, or damage: the whole text tells
    if not found:
        value = _only_argument(parse_json(text, _untyped if kind is None else None))
    if kind is None:
        return value, "bytes" if isinstance(value, bytes) else "json"
    if kind == "json":
        return value, kind
    if not isinstance(value, str):
        raise DecodeFailed(f"The content type is {kind}, but the body is of type {type(value).__name__}.")
    return (value if kind == "text" else _base64(value)), kind


def _only_argument(payload: object) -> Any:
    """Return the one positional argument of a protocol-2 body: ``[args, kwargs, embedded]``."""
    if not isinstance(payload, list) or len(payload) != 3:
        raise DecodeFailed(
            "The body is not a Celery task message of protocol 2: [arguments, keywords, options]."
        )
    positional, keywords, _ = payload
    if not isinstance(positional, list) or not isinstance(keywords, dict | None):
        raise DecodeFailed(
            "The body is not a Celery task message of protocol 2: [arguments, keywords, options]."
        )
    if len(positional) != 1 or keywords:
        named = f" and keywords {shown(sorted(keywords))}" if keywords else ""
        raise BadArguments(
            f"A queue handler takes exactly one positional argument, the body; this message has "
            f"{len(positional)}{named}. Send them as one value: handler.delay({{...}})."
        )
    return positional[0]


def _from_another_program(delivery: Delivery, kind: ContentType | None) -> tuple[Any, ContentType]:
    claimed = _claimed_type(delivery)
    if kind is None:
        if claimed not in _RAW:
            raise DecodeFailed(_not_accepted(claimed))
        kind = _RAW[claimed]
    if kind == "bytes":
        raw = delivery.body
        try:
            return (raw.encode() if isinstance(raw, str) else bytes(raw)), kind
        except (UnicodeEncodeError, TypeError, ValueError) as error:
            raise DecodeFailed(f"The body cannot be read as bytes: {error}") from None
    text = _text(delivery)
    return (text if kind == "text" else parse_json(text)), kind


def _claimed_type(delivery: Delivery) -> str:
    claimed: object = delivery.body_content_type
    if claimed == _JSON:
        return _JSON
    if claimed is None:
        return ""
    if not isinstance(claimed, str):
        raise DecodeFailed(f"The content type of the message is {shown(claimed)}, not a text.")
    return claimed.partition(";")[0].strip().lower()


def _not_accepted(claimed: str) -> str:
    return (
        f"The message is serialized as {shown(claimed)}; only JSON is read "
        '(pickle and yaml could run code). Send it with serializer="json".'
    )


def _text(delivery: Delivery) -> str:
    body = delivery.body
    if delivery.headers.get("compression"):
        raise DecodeFailed("The message is compressed, which is not read. Send it without compression.")
    if isinstance(body, str):
        return body
    if not isinstance(body, bytes | bytearray | memoryview):
        raise DecodeFailed(f"The body is of type {type(body).__name__}, neither text nor bytes.")
    try:
        return bytes(body).decode()
    except UnicodeDecodeError as error:
        raise DecodeFailed(f"The message is not UTF-8 (offset {error.start}).") from None


def _base64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error is one
        raise DecodeFailed(f'The body of content type "bytes" is not base64: {error}.') from None


def _untyped(value: dict[str, Any]) -> Any:
    """Kombu's typed values as plain ones: dates, times, UUIDs and decimals as strings, bytes as bytes."""
    if value.keys() != {"__type__", "__value__"}:
        return value
    kind, inner = value["__type__"], value["__value__"]
    try:
        if kind in ("datetime", "date", "time", "decimal") and isinstance(inner, str):
            return inner
        if kind == "uuid":
            return str(UUID(**inner))
        if kind == "bytes":
            return inner.encode()
        if kind == "base64":
            return b64decode(inner, validate=True)
    except (TypeError, ValueError, AttributeError):
        pass  # not kombu's after all: the object stands as it is
    return value
