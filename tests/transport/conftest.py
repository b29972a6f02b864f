from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cfqueue import clock
from cfqueue.transport import register
from cfqueue.transport.operations import Claim, Leased, Put, Row
from cfqueue.transport.store import Store

register()
ROOT = Path(__file__).resolve().parents[2]
_numbers = itertools.count(1)


def row(
    queue: str = "jobs", *, body: str | bytes = "[1]", priority: int = 0, in_ms: int = 0, **more: Any
) -> Row:
    now = clock.now_ms()
    values: dict[str, Any] = {
        "queue": queue,
        "headers_json": '{"task":"t"}',
        "properties_json": None,
        "body": body,
        "size": len(body),
        "priority": priority,
        "due_ms": now + in_ms,
        "timestamp_ms": now,
        "expires_ms": None,
        "message_id": f"m{next(_numbers)}",
    }
    return Row(**(values | more))


def put(store: Store, *rows: Row) -> list[int]:
    (ids,) = store.submit([Put(rows or [row()])])
    return ids


def claim(store: Store, limit: int = 100, **more: Any) -> list[Leased]:
    (found,) = store.submit([Claim(store.owner().id, more.pop("queue", "jobs"), limit, **more)])
    return found


def wait_for(condition: Callable[[], Any], seconds: float = 10.0, every: float = 0.005) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {condition}")
        time.sleep(every)


def integrity(path: str) -> str:
    """What SQLite says of the file, asked from a process of its own."""
    code = f"import sqlite3; print(sqlite3.connect({path!r}).execute('PRAGMA integrity_check').fetchone()[0])"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "queue.db")


@pytest.fixture
def store(path: str) -> Iterator[Store]:
    store = Store.at(path)
    yield store
    store.close()


@pytest.fixture
def run(path: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a Python program that has `store`, `row`, `put`, `claim` and `clock` at hand."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, **options: Any) -> subprocess.Popen[str]:
        arguments = ", ".join(f"{name}={value!r}" for name, value in options.items())
        program = (
            "import os, sys, time, signal\n"
            f"sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]\n"
            "from conftest import *\n"
            "from cfqueue.transport.operations import *\n"
            f"store = Store.at({path!r}{', ' + arguments if arguments else ''})\n{code}"
        )
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
