"""The wire form of a message: a Celery protocol-2 task message with headers of our own beside Celery's.

The task is ``cfqueue.queue.<queue>``; its only positional argument is the body: the JSON value itself for
``json``, a string for ``text``, base64 in a string for ``bytes``. So any Celery program can produce one
(``send_task("cfqueue.queue.jobs", [body], exchange=kombu.Exchange(""), routing_key="jobs")``) and any
Celery tool can show one. A JSON message without a task header, published by some other program, is accepted
too: it is the body.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from cfqueue.errors import InvalidMessage, MessageTooLarge
from cfqueue.limits import CLOUDFLARE, MAX_HEADER_BYTES, Limits
from cfqueue.messages.content import ContentType, content_type_of, encode_body
from cfqueue.messages.message import moment
from cfqueue.messages.outcome import ErrorInfo

TASK_PREFIX: Final = "cfqueue.queue."

#: The version of our own headers; a reader leaves a message with another major version alone.
VERSION: Final = "1"

VERSION_HEADER: Final = "cfq-version"
CONTENT_TYPE_HEADER: Final = "cfq-content-type"
#: Milliseconds since the epoch of the first send.
TIMESTAMP_HEADER: Final = "cfq-timestamp"
ATTEMPTS_HEADER: Final = "cfq-attempts"

#: What a dead letter carries besides.
DEAD_LETTER_HEADERS: Final = (
    "cfq-reason",
    "cfq-error-type",
    "cfq-error-message",
    "cfq-traceback",
    "cfq-failed-attempts",
    "cfq-origin",
    "cfq-first-failure",
    "cfq-last-failure",
)

#: What stands behind the body in Celery's body text: no keyword arguments, no links. Written compactly, which
#: kombu never does, so it also tells our own messages from other programs'.
EMBEDDED: Final = '], {}, {"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
_HOST: Final = os.uname().nodename

# Celery's protocol-2 header set, then ours; copied for every message, so that only what differs is set.
_TEMPLATE: Final[dict[str, Any]] = {
    "lang": "py",
    "task": "",
    "id": "",
    "shadow": None,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": None,
    "root_id": "",
    "parent_id": None,
    "argsrepr": "",
    "kwargsrepr": "{}",
    "origin": "",
    "ignore_result": True,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
    VERSION_HEADER: VERSION,
    CONTENT_TYPE_HEADER: "json",
    TIMESTAMP_HEADER: 0,
    ATTEMPTS_HEADER: 1,
}


#: What Celery's protocol asks for and our messages have all alike. A broker that stores rows leaves it out
#: (half of the header text) and adds it again for readers other than cfqueue's own workers.
UNSAID: Final[dict[str, Any]] = {
    name: [None, None] if name == "timelimit" else value
    for name, value in _TEMPLATE.items()
    if name not in ("task", "id", "root_id", "argsrepr", "origin") and not name.startswith("cfq-")
}


def without_unsaid(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers without those that ``UNSAID`` has with the same value."""
    return {name: value for name, value in headers.items() if name not in UNSAID or UNSAID[name] != value}


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message that has passed every check and can be published as it is."""

    id: str
    queue: str
    headers: dict[str, Any]
    #: Celery's body text: positional arguments, keyword arguments, embedded options.
    body: str
    #: Bytes of the encoded body: what the size limits count.
    size: int
    content_type: ContentType
    timestamp_ms: int
    delay_seconds: int
    priority: int
    expires_ms: int | None


@dataclass(slots=True)
class Delivery:
    """One message as a broker hands it to a worker. Plain data, picklable."""

    queue: str
    id: str
    headers: dict[str, Any]
    body: str | bytes
    body_content_type: str = "application/json"
    body_encoding: str = "utf-8"
    attempts: int = 1
    suspicion: int = 0
    priority: int = 0
    timestamp_ms: int = 0
    expires_ms: int | None = None
    first_failed_ms: int | None = None
    #: The broker's own, to settle by.
    tag: Any = None


def build_message(
    queue: str,
    body: object,
    content_type: str = "json",
    *,
    timestamp_ms: int,
    delay_seconds: int = 0,
    priority: int = 0,
    expires_ms: int | None = None,
    message_id: str | None = None,
    ignore_result: bool = True,
    headers: Mapping[str, Any] | None = None,
    limits: Limits = CLOUDFLARE,
) -> OutgoingMessage:
    """Encode one message, or say why it cannot be sent.

    Args:
        queue: its name, checked before.
        body: what the handler will see as ``message.body``.
        content_type: ``json``, ``text`` or ``bytes``.
        timestamp_ms: now, in milliseconds since the epoch.
        delay_seconds: checked before (``check_delay``).
        priority: checked before (``check_priority``).
        expires_ms: milliseconds since the epoch after which it is dead-lettered instead of delivered.
        message_id: 32 hexadecimal digits by default.
        ignore_result: False: the outcome is written to Celery's result backend.
        headers: further headers to carry along, checked before (``check_headers``); they win over the usual
            ones of the same name.
        limits: the sizes that apply.

    Raises:
        InvalidContentType, InvalidBody: see ``content``.
        MessageTooLarge: the encoded body has more than ``limits.message_bytes``.

    """
    kind = content_type_of(content_type)
    data = encode_body(body, kind)
    size = len(data)
    if size > limits.message_bytes:
        raise MessageTooLarge(
            f"message length of {size} bytes exceeds limit of {limits.message_bytes} (encoded as {kind}). "
            "Send a reference to the data instead; a deployment can raise the limit "
            "(cfqueue_max_message_bytes)."
        )
    if kind == "json":
        argument = data.decode()
    elif kind == "text":
        argument = encode_body(data.decode(), "json").decode()
    else:
        argument = f'"{b64encode(data).decode()}"'
    uid = uuid4().hex if message_id is None else message_id
    wire = _TEMPLATE.copy()
    wire["task"] = TASK_PREFIX + queue
    wire["id"] = wire["root_id"] = uid
    wire["argsrepr"] = f"(<{kind}, {size} bytes>,)"
    wire["origin"] = f"gen{os.getpid()}@{_HOST}"
    wire["timelimit"] = [None, None]
    wire["stamps"] = {}
    wire[CONTENT_TYPE_HEADER] = kind
    wire[TIMESTAMP_HEADER] = timestamp_ms
    if expires_ms is not None:
        wire["expires"] = moment(expires_ms).isoformat()
    if not ignore_result:
        wire["ignore_result"] = False
    if headers:
        wire.update(headers)
    return OutgoingMessage(
        uid,
        queue,
        wire,
        f"[[{argument}{EMBEDDED}",
        size,
        kind,
        timestamp_ms,
        delay_seconds,
        priority,
        expires_ms,
    )


def check_headers(headers: Mapping[str, Any]) -> None:
    """Refuse headers of the caller's that could not travel or that are ours. Raises InvalidMessage."""
    if not isinstance(headers, Mapping) or not all(isinstance(name, str) for name in headers):
        raise InvalidMessage(f"headers={headers!r:.80} is not a mapping of names to values.")
    ours = [name for name in headers if name.startswith("cfq-")]
    if ours:
        raise InvalidMessage(
            f"The header {ours[0]!r} is cfqueue's own; name yours without 'cfq-'. Nothing was sent."
        )
    try:
        size = len(json.dumps(headers, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError) as error:
        raise InvalidMessage(f"headers cannot be written as JSON: {error}. Nothing was sent.") from error
    if size > MAX_HEADER_BYTES // 2:
        raise InvalidMessage(
            f"headers of {size} bytes exceed the limit of {MAX_HEADER_BYTES // 2}; put the data into the body."
        )


def known_version(headers: Mapping[str, Any]) -> bool:
    """Whether this version understands the message; False: leave it alone, a newer worker will take it.

    A message without our version header is an ordinary one, and understood.
    """
    version = headers.get(VERSION_HEADER)
    return version is None or str(version).partition(".")[0] == VERSION


def dead_letter_headers(
    reason: str,
    origin: str,
    attempts: int,
    first_failed_ms: int | None,
    now_ms: int,
    error: ErrorInfo | None = None,
) -> dict[str, Any]:
    """Return the headers that a message gets on its way to the dead-letter queue. Never raises.

    Args:
        reason: one of ``outcome.REASONS``.
        origin: the queue it failed on.
        attempts: its failed deliveries there.
        first_failed_ms: when the first of them failed, in milliseconds since the epoch; None: just now.
        now_ms: when the last of them failed.
        error: the last exception; its texts are cut to the sizes in ``limits``.

    """
    found = error.bounded() if error is not None else None
    return {
        "cfq-reason": reason,
        "cfq-error-type": found and found.type,
        "cfq-error-message": found and found.message,
        "cfq-traceback": found and found.traceback,
        "cfq-failed-attempts": attempts,
        "cfq-origin": origin,
        "cfq-first-failure": now_ms if first_failed_ms is None else first_failed_ms,
        "cfq-last-failure": now_ms,
    }
