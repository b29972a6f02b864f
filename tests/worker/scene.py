"""What the handlers of the tests' projects use: they obey their messages and write down what happened.

Runs inside the workers. A record is one line of JSON, written with one O_APPEND write, so records of many
processes never mix, and one that was written has survived whatever came after.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import current_task
from celery.exceptions import Ignore, Reject, Retry

FOLDER = Path(os.environ.get("SCENE_FOLDER", "."))
POLL = 0.005


def record(event: str, **fields: Any) -> None:
    line = {"event": event, "pid": os.getpid(), "at": time.monotonic(), **fields}
    descriptor = os.open(FOLDER / "records.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, json.dumps(line, default=str).encode() + b"\n")
    finally:
        os.close(descriptor)


def describe(message: Any) -> dict[str, Any]:
    return {
        "id": message.id,
        "body": message.body if not isinstance(message.body, bytes) else message.body.hex(),
        "attempts": message.attempts,
        "timestamp": message.timestamp.isoformat(),
        "content_type": message.content_type,
        "headers": {k: v for k, v in message.headers.items() if k.startswith("cfq-")},
    }


def wait_for_gate(name: str) -> None:
    """Until the test opens it."""
    while not (FOLDER / "gates" / name).exists():
        time.sleep(POLL)


def run(batch: Any, **more: Any) -> None:
    """The handler of most queues: do what each message says, then what the first says of the batch."""
    fields = {
        "queue": batch.queue,
        "batch": current_task.request.id,
        "worker": os.environ.get("SCENE_WORKER"),
        "messages": [describe(message) for message in batch],
        **more,
    }
    record("start", **fields)
    try:
        for message in batch:
            if isinstance(message.body, dict):
                for word, *arguments in message.body.get("do", ()):
                    obey(batch, message, word, arguments)
    except BaseException as error:
        record("end", **fields, raised=type(error).__name__)
        raise
    record("end", **fields, raised=None)


def obey(batch: Any, message: Any, word: str, arguments: list[Any]) -> None:
    if word.startswith("first:"):  # only at the first attempt
        if message.attempts > 1:
            return
        word = word.removeprefix("first:")
    WORDS[word](batch, message, *arguments)


def _raise(error: BaseException) -> None:
    raise error


def _hang() -> None:
    while True:
        time.sleep(60)


def _memory() -> None:
    raise MemoryError("eaten up")


WORDS: dict[str, Any] = {
    "ack": lambda _batch, message: message.ack(),
    "retry": lambda _batch, message, *delay: message.retry(delay_seconds=delay[0] if delay else None),
    "ack_all": lambda batch, _message: batch.ack_all(),
    "retry_all": lambda batch, _message, *delay: batch.retry_all(delay_seconds=delay[0] if delay else None),
    "raise": lambda *_: _raise(ValueError("as asked")),
    "memory": lambda *_: _memory(),
    "system-exit": lambda *_: _raise(SystemExit(3)),
    "Retry": lambda _batch, _message, *when: _raise(Retry("later", when=when[0] if when else None)),
    "Reject": lambda *_: _raise(Reject("no good", requeue=False)),
    "Reject-requeue": lambda *_: _raise(Reject("again", requeue=True)),
    "Ignore": lambda *_: _raise(Ignore()),
    "sleep": lambda _batch, _message, seconds: time.sleep(seconds),
    "gate": lambda _batch, _message, name: wait_for_gate(name),
    "exit": lambda *_: os._exit(1),
    "kill": lambda *_: os.kill(os.getpid(), signal.SIGKILL),
    "kill-parent": lambda *_: os.kill(int(os.environ["SCENE_PID"]), signal.SIGKILL),
    "hang": lambda *_: _hang(),
}
