"""What a worker costs while nothing is to be done: memory with 100,000 delayed messages, idle processor time."""

from __future__ import annotations

import time
from pathlib import Path

from celery import Celery

from benchmarks import filling, message, progress
from benchmarks.model import Case, Goal, Sample, Side
from benchmarks.worker import Worker
from cfqueue import CFQueue

_MEGABYTE = 1e6


def delayed(folder: Path, messages: int, pool: str = "prefork") -> Sample:
    """Resident memory of the whole worker before and after ``messages`` come that are due in five hours."""
    cf = CFQueue(Celery("resources", broker=message.url(folder)))
    queue = cf.queues["noop"]
    with Worker(folder, "queues", pool, ["noop"]) as worker:
        for batch in message.batches(500):
            queue.send_batch(batch)
        worker.wait_for(lambda: progress.read(folder).handled == 500, 20, "the first messages")
        before = _steady(worker)
        filling.queue(folder, "noop", messages, delay_seconds=5 * 3600)
        after = _steady(worker)
        queue.send(message.payload(0))
        worker.wait_for(lambda: progress.read(folder).handled == 501, 20, "a message among delayed ones")
    figures = {
        "before_mb": before / _MEGABYTE,
        "after_mb": after / _MEGABYTE,
        "growth_mb": (after - before) / _MEGABYTE,
    }
    return Sample(messages, queue.metrics().delayed_count or 0, figures)


def _steady(worker: Worker) -> int:
    """The worker's memory once it has been the same for two seconds."""
    seen: list[int] = []
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        seen.append(worker.memory())
        if len(seen) > 4 and max(seen[-5:]) - min(seen[-5:]) < 100_000:
            break
        time.sleep(0.5)
    return seen[-1]


def idle(folder: Path, seconds: float, pool: str, project: str) -> Sample:
    """Processor time of the whole worker, in percent of a core, while nothing happens."""
    queues = ["noop", "latency"] if project == "queues" else None
    with Worker(folder, project, pool, queues) as worker:
        time.sleep(3)
        started, spent = time.monotonic(), worker.cpu_seconds()
        time.sleep(seconds)
        passed = time.monotonic() - started
        main, total = worker.cpu_seconds()
    figures = {"percent": (total - spent[1]) / passed * 100, "main_percent": (main - spent[0]) / passed * 100}
    return Sample(1, 1, figures)


MEMORY = Case(
    "memory",
    "Worker memory while 100,000 delayed messages wait (main process and children)",
    [Side("worker", "benchmarks.resources:delayed", {"messages": 100000}, {"messages": 20000})],
    [
        Goal("growth of resident memory", "worker", "growth_mb", most=5, unit="MB"),
        Goal("resident memory with the delayed messages", "worker", "after_mb", unit="MB"),
    ],
)

_POOLS = ("prefork", "threads", "solo")

IDLE = Case(
    "idle",
    "Processor time of an idle worker",
    [
        *(
            Side(f"queues, {pool}", "benchmarks.resources:idle", {"seconds": 20, "pool": pool, "project": "queues"},
                 {"seconds": 4})
            for pool in _POOLS
        ),
        Side("tasks, prefork", "benchmarks.resources:idle", {"seconds": 20, "pool": "prefork", "project": "tasks"},
             only_full=True),
    ],
    [
        *(
            Goal(f"of one core, {pool}", f"queues, {pool}", "percent", most=1, unit="%") for pool in _POOLS
        ),
        Goal("of one core, plain tasks on our transport, prefork", "tasks, prefork", "percent", unit="%"),
    ],
)  # fmt: skip
