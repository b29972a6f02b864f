"""The message that every side sends: about 50 bytes of JSON, in Celery's envelope."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cfqueue.messages import build_message

QUEUE = "bench"


def payload(number: int) -> dict[str, Any]:
    return {"userId": "123", "action": "signup", "n": number}


def batches(count: int, size: int = 100) -> list[list[dict[str, Any]]]:
    """``count`` messages as `send_batch` takes them."""
    return [
        [{"body": payload(n)} for n in range(start, min(start + size, count))]
        for start in range(0, count, size)
    ]


def celery_headers() -> dict[str, Any]:
    """The headers that `send` writes; peers publish them too."""
    return dict(build_message(QUEUE, payload(0), timestamp_ms=0).headers)


def celery_body(number: int) -> list[Any]:
    embedded = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return [[payload(number)], {}, embedded]


def url(folder: Path) -> str:
    """The embedded broker in this folder."""
    return f"cfqueue+sqlite:///{folder / 'queue.db'}"
