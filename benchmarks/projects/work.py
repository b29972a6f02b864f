"""What handlers and tasks do; the same for both."""

from __future__ import annotations

import functools
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from celery.signals import worker_ready

from benchmarks.progress import Counter

FOLDER = Path(os.environ["BENCHMARK_FOLDER"])
BROKER = os.environ["BENCHMARK_BROKER"]
INSERT = "INSERT INTO logs(user_id, action, n) VALUES (:userId, :action, :n)"

counter = Counter(FOLDER)


@worker_ready.connect
def _say_ready(**_: Any) -> None:
    (FOLDER / "ready").touch()


def arrived(sent: float) -> None:
    """Write down how long ago a message was sent, in seconds."""
    line = f"{time.monotonic() - sent:.6f}\n"
    descriptor = os.open(FOLDER / "latencies", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def logs() -> sqlite3.Connection:
    """This process's connection to a database of its own; every commit is synced."""
    return _logs_of(os.getpid())


@functools.cache
def _logs_of(_pid: int) -> sqlite3.Connection:
    connection = sqlite3.connect(FOLDER / "logs.db", timeout=30, isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    return connection
