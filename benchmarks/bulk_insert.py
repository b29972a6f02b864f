"""The handler writes what it gets into a SQLite table, with durable commits.

A batch is one transaction with one executemany; a task (``acks_late``) is one INSERT. Prefork, two children, a
database of its own, WAL, ``synchronous=FULL``.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

from benchmarks import drain
from benchmarks.model import Case, Goal, Sample, Side
from benchmarks.projects import schema


def batches(folder: Path, messages: int) -> Sample:
    schema.create_logs(folder)
    return _checked(folder, drain.batches(folder, "prefork", messages, "insert"))


def tasks(folder: Path, messages: int) -> Sample:
    schema.create_logs(folder)
    return _checked(folder, drain.tasks(folder, "prefork", messages, "insert"))


def _checked(folder: Path, sample: Sample) -> Sample:
    """Every message has its row, once."""
    connection = sqlite3.connect(folder / "logs.db")
    rows, different = connection.execute("SELECT count(*), count(DISTINCT n) FROM logs").fetchone()
    connection.close()
    if (rows, different) != (sample.sent, sample.sent):
        return replace(sample, trouble=f"{rows} rows, {different} different, for {sample.sent} messages")
    return sample


CASE = Case(
    "insert",
    "A handler that stores its messages in SQLite (prefork, two children, synchronous=FULL)",
    [
        Side("one bulk INSERT per batch", "benchmarks.bulk_insert:batches", {"messages": 10000}, {"messages": 3000}),
        Side("one INSERT per task", "benchmarks.bulk_insert:tasks", {"messages": 10000}, {"messages": 2000}),
    ],
    [
        Goal("bulk INSERT per batch of 100, against one INSERT per task", "one bulk INSERT per batch", "rate",
             "one INSERT per task", least=6),
    ],
)  # fmt: skip
