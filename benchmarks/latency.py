"""From `send` to the start of the handler, in an idle worker with ``max_batch_timeout=0``.

One message about every 15 ms, each on its own; what counts is what the handler wrote down.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery

from benchmarks import message
from benchmarks.model import Case, Goal, Sample, Side, percentile
from benchmarks.worker import Worker
from cfqueue import CFQueue

_WARM_UP = 10


def queue(folder: Path, pool: str, messages: int) -> Sample:
    cf = CFQueue(Celery("latency", broker=message.url(folder)))
    with Worker(folder, "queues", pool, ["latency"]) as worker:
        return _measured(worker, messages, cf.queues["latency"].send)


def task(folder: Path, pool: str, messages: int) -> Sample:
    app = Celery("latency", broker=message.url(folder))

    def send(body: dict[str, float]) -> Any:
        return app.send_task("benchmarks.projects.tasks.latency", [body], ignore_result=True)

    with Worker(folder, "tasks", pool) as worker:
        return _measured(worker, messages, send)


def _measured(worker: Worker, messages: int, send: Callable[[dict[str, float]], Any]) -> Sample:
    path = worker.folder / "latencies"
    for number in range(_WARM_UP):
        send({"sent": time.monotonic()})
        worker.wait_for(lambda wanted=number + 1: _lines(path) >= wanted, 10, "a message to arrive")
        time.sleep(0.1)
    pauses = random.Random(1)
    for _ in range(messages):
        time.sleep(pauses.uniform(0.010, 0.020))
        send({"sent": time.monotonic()})
    deadline = time.monotonic() + 10
    while _lines(path) < messages + _WARM_UP and time.monotonic() < deadline:
        time.sleep(0.05)
    seen = [float(line) * 1e3 for line in path.read_text().splitlines()[_WARM_UP:]]
    if len(seen) < messages:
        return Sample(messages, len(seen), {})
    figures = {f"p{percent}_ms": percentile(seen, percent) for percent in (50, 95, 99, 100)}
    return Sample(messages, len(seen), {**figures, "samples": len(seen)})


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _side(kind: str, pool: str) -> Side:
    return Side(
        f"{kind}, {pool}", f"benchmarks.latency:{kind}", {"pool": pool, "messages": 1000}, {"messages": 200}
    )


CASE = Case(
    "latency",
    "Idle latency from send to handler start, max_batch_timeout=0",
    [*(_side("queue", pool) for pool in ("prefork", "threads", "solo")), _side("task", "prefork")],
    [
        *(
            Goal(f"p95 from send to handler, {pool}", f"queue, {pool}", "p95_ms", most=30, unit="ms")
            for pool in ("prefork", "threads", "solo")
        ),
        Goal("p50, a queue's handler against a plain task, prefork", "queue, prefork", "p50_ms",
             "task, prefork"),
    ],
)  # fmt: skip
