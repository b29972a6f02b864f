"""A worker drains a full queue: batches of 100, against the same work as plain Celery tasks.

Both on our own transport, pools of two, the same prefetch of 100, and the same promise: acked when the
work is done (``acks_late``). Tasks acked when they begin, Celery's default, are shown for information.
What is counted is what handlers have done; the worker is stopped afterwards and must
have left nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import filling, progress
from benchmarks.model import Case, Goal, Sample, Side
from benchmarks.worker import Worker

#: Seconds without progress after which a drain is given up; its run is incomplete then.
_PATIENCE = 8.0


def batches(folder: Path, pool: str, messages: int, work: str = "noop") -> Sample:
    """A queue handler with max_batch_size=100."""
    store = filling.queue(folder, work, messages).broker
    with Worker(folder, "queues", pool, [work]) as worker:
        figures = watched(worker, messages)
    left = store.backlog(work)
    return _sample(folder, messages, figures, left.count + left.in_flight)


def tasks(folder: Path, pool: str, messages: int, work: str = "noop", acks: str = "late") -> Sample:
    """A plain task per message."""
    store = filling.tasks(folder, work, messages)
    with Worker(folder, "tasks", pool, acks=acks) as worker:
        figures = watched(worker, messages)
    left = store.backlog("celery")
    return _sample(folder, messages, figures, left.count + left.in_flight)


def watched(
    worker: Worker, messages: int, seen: Callable[[progress.Progress], None] = lambda _: None
) -> dict[str, float]:
    """Wait until all is handled, or until nothing happens any more; processor time per message."""
    handled, moved_at = 0, time.monotonic()
    begin: tuple[int, float, float] | None = None
    while handled < messages and time.monotonic() - moved_at < _PATIENCE:
        time.sleep(0.02)
        now = progress.read(worker.folder)
        if now.handled > handled:
            handled, moved_at = now.handled, time.monotonic()
            seen(now)
        if begin is None and handled:
            begin = (handled, *worker.cpu_seconds())
    if begin is None or handled == begin[0]:
        return {}
    main, total = worker.cpu_seconds()
    counted = handled - begin[0]
    return {
        "cpu_us": (total - begin[2]) / counted * 1e6,
        "main_cpu_us": (main - begin[1]) / counted * 1e6,
    }


def _sample(folder: Path, messages: int, figures: dict[str, float], left: int) -> Sample:
    done = progress.read(folder)
    if done.handled == messages:
        figures["rate"] = done.rate
    return Sample(messages, done.handled, figures, f"{left} messages were left" if left else "")


def _sides(pool: str) -> list[Side]:
    full = {"pool": pool, "messages": 20000}
    return [
        Side(f"batches, {pool}", "benchmarks.drain:batches", full, {"messages": 6000}),
        Side(f"tasks, {pool}", "benchmarks.drain:tasks", full, {"messages": 3000}),
        Side(
            f"tasks acked early, {pool}", "benchmarks.drain:tasks", {**full, "acks": "early"}, only_full=True
        ),
    ]


def _goals(pool: str) -> list[Goal]:
    ours = f"batches, {pool}"
    return [
        Goal(f"batches of 100 against plain tasks, {pool}", ours, "rate", f"tasks, {pool}", least=4),
        Goal(f"the same against tasks acked early, {pool}", ours, "rate", f"tasks acked early, {pool}"),
        Goal(f"processor time per message, {pool}", ours, "cpu_us", f"tasks, {pool}"),
    ]


_POOLS = ("prefork", "threads", "solo")

CASE = Case(
    "drain",
    "A worker drains a full queue, two pool slots (solo: one)",
    [side for pool in _POOLS for side in _sides(pool)],
    [goal for pool in _POOLS for goal in _goals(pool)],
)
