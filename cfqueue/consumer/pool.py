"""The bridge between cfqueue's I/O loop and Celery's pool: hand a batch over, bring its report back.

Only here, and in ``step.py``, is Celery's own loop touched. Prefork and solo must be called from the
worker's main thread: a pipe that Celery's hub watches carries the batch there. The pool's callbacks
arrive on whatever thread the pool uses and are passed to the I/O loop at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from .batch import Batch, Report
from .child import run_batch, wire
from .children import Children
from .jobs import Jobs
from .lines import Line
from .requests import BatchRequest

logger = logging.getLogger("cfqueue.consumer")

#: Seconds that billiard waits, where it has no event loop, before it calls a lost child lost; Celery's
#: own default is 10.
_LOST_AFTER = 1.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a batch ended in the pool: with a report, or without one (``lost`` says why)."""

    batch: Batch
    report: Report | None
    #: ``"crashed"`` (the child died or was killed at the hard limit), ``"revoked"`` (killed by command),
    #: ``"refused"`` (the pool is closing and did not take it) or None.
    lost: str | None = None
    detail: str = ""


class PoolBridge:
    """Gives batches to the worker's pool, at most as many as it has slots."""

    def __init__(
        self,
        *,
        key: str,
        hostname: str,
        task_of: Callable[[str], Any],
        on_end: Callable[[Ended], None],
        on_child: Callable[[], None],
        autoscaler: Any = None,
    ) -> None:
        self._key = key
        self._hostname = hostname
        self._task_of = task_of
        self._on_end = on_end
        self._on_child = on_child
        self._pool: Any = None
        self._hub: Any = None
        self._outbox: deque[Batch] = deque()
        self._thread: threading.Thread | None = None
        self._news: SimpleQueue[bool] = SimpleQueue()
        self._pipe: tuple[int, int] | None = None
        #: Given to the pool and not ended, by batch; of those, accepted by a child.
        self.running: dict[int, Batch] = {}
        self._requests: dict[int, BatchRequest] = {}
        self.children = Children()
        #: Celery's autoscaler, where the worker has one.
        self.autoscaler = autoscaler
        self._wanting: BatchRequest | None = None
        self._wanting_line: Line | None = None
        self._reap_wanted = False
        self._jobs = Jobs()
        self.closing = False

    def attach(self, pool: Any, hub: Any | None) -> None:
        """Use this pool; with a hub, hand batches over on its thread. Called at every start of Celery's loop,
        because Celery clears its hub when it reconnects.
        """
        if pool is not self._pool:
            self._jobs.guard(pool, self._dropped)
        self._pool = pool
        self._hub = hub
        if hub is not None:
            if self._pipe is None:
                self._pipe = os.pipe()
                os.set_blocking(self._pipe[0], False)
                os.set_blocking(self._pipe[1], False)
            hub.add_reader(self._pipe[0], self._hand_over)

    @property
    def slots(self) -> int:
        """How many batches may be in the pool at once: one per process or thread."""
        pool = self._pool
        return int(pool.num_processes or 1) if pool is not None else 0

    @property
    def free(self) -> int:
        """Slots without a batch of ours."""
        return 0 if self.closing else self.slots - len(self.running)

    @property
    def kills(self) -> bool:
        """Whether this pool can kill a handler that hangs (prefork only)."""
        return hasattr(getattr(self._pool, "_pool", None), "_join_exited_workers")

    def give(self, batch: Batch) -> None:
        """Hand the batch to the pool. From the I/O loop."""
        self.running[id(batch)] = batch
        self._outbox.append(batch)
        if self._hub is None:
            self._hand_over_by_thread()
        else:
            self._wake_hub()

    def _hand_over_by_thread(self) -> None:
        """Without Celery's event loop: a solo pool runs the batch right where it is handed over, and that
        must not be the I/O loop, which has to go on settling and to see the shutdown.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._hand_over_forever, name="cfqueue-pool", daemon=True)
            self._thread.start()
        self._news.put(True)

    def _hand_over_forever(self) -> None:
        while self._news.get():
            self._hand_over()

    def join(self) -> None:
        """Warm shutdown: wait for what a solo pool without an event loop is running."""
        if self._thread is not None:
            self._news.put(False)
            self._thread.join()

    def ask_for_more(self, line: Line | None) -> None:
        """Let the autoscaler see that a queue has messages and no slot, or (None) that none has. It counts
        reserved requests, and there are never more of ours than slots. From the I/O loop.
        """
        if self._hub is not None and line is not self._wanting_line:
            self._wanting_line = line
            self._wake_hub()

    def _show_wanting(self) -> None:
        """On Celery's thread: one reserved request stands for what waits for a slot."""
        line = self._wanting_line
        if self._wanting is not None:
            self._wanting.ready()
            self._wanting = None
        if line is not None:
            batch = Batch("waiting for a slot", line.settings, [])
            self._wanting = BatchRequest(batch, self._task_of(line.name), self._hostname)
            self._wanting.reserved()
            self.autoscaler.maybe_scale()

    def reap(self) -> None:
        """A pool child has died: let the pool look now instead of at its next interval. From the I/O loop."""
        if self._hub is not None:
            self._reap_wanted = True
            self._wake_hub()

    def _wake_hub(self) -> None:
        assert self._pipe is not None
        # A full pipe is full of wake-ups already.
        with contextlib.suppress(BlockingIOError):
            os.write(self._pipe[1], b"b")

    def _hand_over(self, *_: object) -> None:
        """On Celery's thread: everything in the outbox goes to the pool."""
        if self._pipe is not None and self._hub is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._pipe[0], 4096)
        if self._reap_wanted:
            self._reap_wanted = False
            self._pool._pool.maintain_pool()
        if self.autoscaler is not None:
            self._show_wanting()
        while self._outbox:
            batch = self._outbox.popleft()
            try:
                self._apply(batch)
            except Exception as error:
                # An error that escaped here would restart Celery's connection.
                logger.exception("cfqueue: the pool did not take batch %s", batch.id)
                self._end(batch, None, "refused", repr(error))

    def _apply(self, batch: Batch) -> None:
        settings = batch.settings
        request = BatchRequest(batch, self._task_of(batch.queue), self._hostname)
        self._requests[id(batch)] = request
        request.reserved()
        result = self._pool.apply_async(
            run_batch,
            args=(self._key, batch.queue, batch.id, os.getpid(), self._payload(batch)),
            callback=lambda report: self._end(batch, report),
            error_callback=lambda failure: self._failed(batch, failure),
            accept_callback=lambda pid, time: self._accepted(request, pid, time),
            timeout_callback=lambda soft, timeout: self._timed_out(batch, soft, timeout),
            # Remote control's time_limit sets those of the task.
            soft_timeout=request.task.soft_time_limit or settings.soft_time_limit,
            timeout=request.task.time_limit or settings.time_limit,
            correlation_id=batch.id,
            lost_worker_timeout=_LOST_AFTER,
        )
        if result is None and self._closed():
            self._end(batch, None, "refused", "the pool is closing")
        elif id(batch) in self._requests:
            self._jobs.add(batch, result)

    def _accepted(self, request: BatchRequest, pid: int, time: float) -> None:
        request.accepted(pid, time)
        if self.kills and self.children.watch(pid):
            self._on_child()

    def _payload(self, batch: Batch) -> list[Any]:
        """What the pool is given: only processes need the messages in a form that travels."""
        return [wire(delivery) for delivery in batch.deliveries] if self.kills else list(batch.deliveries)

    def _closed(self) -> bool:
        """Billiard's pool returns None without a word once it is closing; solo always returns None."""
        inner = getattr(self._pool, "_pool", None)
        return inner is not None and getattr(inner, "_state", 0) != 0

    def _dropped(self, batch: Batch) -> None:
        self._end(batch, None, "refused", "the pool dropped it before a process had begun")

    def _timed_out(self, batch: Batch, soft: bool, timeout: float) -> None:
        kind = "soft" if soft else "hard"
        logger.warning(
            "cfqueue: batch %s of queue %s overran the %s time limit of %s s",
            batch.id,
            batch.queue,
            kind,
            timeout,
        )

    def _failed(self, batch: Batch, failure: Any) -> None:
        """Billiard reports a child that died, was terminated, or overran the hard limit."""
        error = getattr(failure, "exception", failure)
        error = getattr(error, "exc", error)  # billiard wraps it together with its traceback
        name = type(error).__name__
        request = self._requests.get(id(batch))
        by_command = name == "Terminated" or self.closing or (request is not None and request.terminated)
        lost = "revoked" if by_command else "crashed"
        self._end(batch, None, lost, f"{name}: {error}")

    def _end(self, batch: Batch, report: Report | None, lost: str | None = None, detail: str = "") -> None:
        if self.running.get(id(batch)) is not batch:
            return  # a second callback for the same batch (billiard: hard limit, then the child's exit)
        if report is not None and not isinstance(report, Report):
            lost, detail, report = "crashed", repr(report), None
        self._jobs.forget(batch)
        request = self._requests.pop(id(batch), None)
        if request is not None:
            request.ready()
        self._on_end(Ended(batch, report, lost, detail))

    def ended(self, batch: Batch) -> bool:
        """On the I/O loop: the batch has left the pool. False when that was known already."""
        return self.running.pop(id(batch), None) is not None

    def abandon(self) -> list[Batch]:
        """After the pool's end: the batches that never reported. billiard drops, without any callback, what
        no child had taken.
        """
        left = list(self.running.values())
        self.running.clear()
        for request in list(self._requests.values()):
            request.ready()
        self._requests.clear()
        return left

    def close(self) -> None:
        """Give nothing more to the pool."""
        self.closing = True

    def detach(self) -> None:
        """The loop has ended: close what was opened."""
        self.children.close()
        if self._pipe is not None:
            with contextlib.suppress(Exception):  # Celery's hub may be closed already
                self._hub.remove(self._pipe[0])
            os.close(self._pipe[0])
            os.close(self._pipe[1])
            self._pipe = None
            self._hub = None
