"""Does a deep queue drain as fast as a shallow one?

In one process: 100 times 1,000 messages, each time filled and then drained with only the draining timed,
against 100,000 drained at once. In a worker: the rate over the first fifth of 100,000 messages, while the
queue is deepest, against that over the last fifth.
"""

from __future__ import annotations

import time
from pathlib import Path

from celery import Celery

from benchmarks import broker, filling, message, progress
from benchmarks.drain import watched
from benchmarks.model import Case, Goal, Sample, Side
from benchmarks.worker import Worker
from cfqueue import CFQueue


def rounds(folder: Path, depth: int, rounds: int) -> Sample:
    """Drain the full depth, several times; the rate over the time that draining took."""
    cf = CFQueue(Celery("depth", broker=message.url(folder)))
    queue = cf.queues[message.QUEUE]
    handled, seconds, worked = 0, 0.0, 0.0
    for _ in range(rounds):
        for batch in message.batches(depth):
            queue.send_batch(batch)
        started, busy = time.perf_counter(), time.process_time()
        handled += broker.drain(cf)
        seconds += time.perf_counter() - started
        worked += time.process_time() - busy
    left = queue.metrics().backlog_count
    figures = {"rate": handled / seconds, "cpu_us": worked / handled * 1e6}
    return Sample(depth * rounds, handled, figures, f"{left} messages were left" if left else "")


def worker(folder: Path, pool: str, messages: int) -> Sample:
    """A worker drains one deep queue; its rate over the first and over the last fifth."""
    cf = filling.queue(folder, "noop", messages)
    seen: list[tuple[int, float]] = []
    with Worker(folder, "queues", pool, ["noop"]) as running:
        watched(running, messages, lambda now: seen.append((now.handled, now.last)))
    done = progress.read(folder)
    left = cf.queues["noop"].metrics().backlog_count
    if done.handled != messages:
        return Sample(messages, done.handled)
    # The very first tenth is left out: children start, caches fill.
    figures = {
        "rate": done.rate,
        "deep_rate": _rate(seen, messages * 0.1, messages * 0.3),
        "shallow_rate": _rate(seen, messages * 0.8, messages),
    }
    return Sample(messages, done.handled, figures, f"{left} messages were left" if left else "")


def _rate(seen: list[tuple[int, float]], start: float, end: float) -> float:
    inside = [(handled, at) for handled, at in seen if start <= handled <= end]
    return (inside[-1][0] - inside[0][0]) / (inside[-1][1] - inside[0][1])


CASE = Case(
    "depth",
    "Draining a queue of 100,000 against one of 1,000",
    [
        Side("depth 1,000", "benchmarks.depth:rounds", {"depth": 1000, "rounds": 100}, {"rounds": 20}),
        Side("depth 100,000", "benchmarks.depth:rounds", {"depth": 100000, "rounds": 1}, {"depth": 20000}),
        Side("worker, 100,000", "benchmarks.depth:worker", {"pool": "prefork", "messages": 100000},
             {"messages": 20000}),
    ],
    [
        Goal("drain rate at depth 100,000 against depth 1,000", "depth 100,000", "rate", "depth 1,000",
             least=0.9),
        Goal("worker: rate over the deepest fifth against the last", "worker, 100,000", "deep_rate",
             "worker, 100,000", "shallow_rate"),
    ],
)  # fmt: skip
