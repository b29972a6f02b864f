"""A batch as Celery's worker sees it: one request, so that ``inspect``, shutdown and autoscaling count it."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from celery.worker import state

from .batch import Batch


class BatchRequest:
    """What stands in ``celery.worker.state`` for a batch that was given to the pool.

    Its id is the batch's id; ``celery inspect active`` shows the queue and the ids of the messages.
    """

    acknowledged = False
    _eta_timer_entry = None

    def __init__(self, batch: Batch, task: Any, hostname: str) -> None:
        self.batch = batch
        self.task = task
        self.id = batch.id
        self.name = task.name
        self.hostname = hostname
        self.time_start: float | None = None
        self.worker_pid: int | None = None
        #: Killed by command (revoke, cold shutdown): its death says nothing about its messages.
        self.terminated = False

    @property
    def task_id(self) -> str:
        """The batch's id, by the name that Celery uses."""
        return self.id

    @property
    def task_name(self) -> str:
        """The task's name, by the name that Celery uses."""
        return str(self.name)

    def reserved(self) -> None:
        """Given to the pool, not yet begun by a process or thread of it."""
        state.task_reserved(self)

    def accepted(self, pid: int | None, _time: float | None = None) -> None:
        """A process or thread of the pool has begun."""
        self.worker_pid = pid
        self.time_start = time.time()
        state.task_accepted(self)
        # Celery counts tasks; a batch counts as its messages.
        more = len(self.batch.deliveries) - 1
        state.total_count.update({self.name: more})
        state.all_total_count[0] += more

    def ready(self) -> None:
        """Over, one way or the other."""
        state.task_ready(self)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """``revoke(batch id, terminate=True)``: kill the process that runs it."""
        self.terminated = True
        if self.worker_pid is not None:
            pool.terminate_job(self.worker_pid, signal)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Cold shutdown: kill the process; the messages are given back uncharged."""
        del emit_retry
        # Only prefork can kill; elsewhere the worker's own end ends the handler.
        with contextlib.suppress(NotImplementedError):
            self.terminate(pool, signal)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """What ``celery inspect active`` and ``reserved`` print."""
        del safe
        return {
            "id": self.id,
            "name": self.name,
            "type": self.name,
            "args": [[delivery.id for delivery in self.batch.deliveries]],
            "kwargs": {},
            "hostname": self.hostname,
            "time_start": self.time_start,
            "acknowledged": self.acknowledged,
            "worker_pid": self.worker_pid,
            "delivery_info": {
                "exchange": "",
                "routing_key": self.batch.queue,
                "priority": None,
                "redelivered": self.batch.suspicion > 0,
            },
            "queue": self.batch.queue,
            "size": len(self.batch.deliveries),
        }

    def __repr__(self) -> str:
        return f"<BatchRequest {self.name}[{self.id}] {len(self.batch.deliveries)} messages>"
