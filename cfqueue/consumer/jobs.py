"""What prefork does to jobs that no process has accepted, when Celery reconnects or stops.

``AsynPool.flush`` drops them without any callback: those that wait to be written, which never run, and
also those already written to a process, which run with nobody listening (celery/concurrency/asynpool.py,
5.5 to 5.7). For a batch the first would hold its slot and its leases for ever, the second would run it
twice. So ``flush`` is wrapped on the worker's pool object: a batch that was written counts as accepted and
is waited for, and a batch that was dropped is reported as such. Other tasks' jobs are not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .batch import Batch


class Jobs:
    """The pool's handle of every batch of ours that has not ended. Used on Celery's thread."""

    def __init__(self) -> None:
        self._handles: dict[int, tuple[Batch, Any]] = {}

    def add(self, batch: Batch, handle: Any) -> None:
        """The pool took the batch and returned this handle (None from pools that have none)."""
        if handle is not None:
            self._handles[id(batch)] = (batch, handle)

    def forget(self, batch: Batch) -> None:
        """The batch has ended."""
        self._handles.pop(id(batch), None)

    def guard(self, pool: Any, dropped: Callable[[Batch], None]) -> None:
        """Wrap the pool's ``flush``, where it has one; ``dropped`` is called for each batch that it dropped."""
        flush = getattr(pool, "flush", None)
        inner = getattr(pool, "_pool", None)
        cache = getattr(inner, "_cache", None)
        if flush is None or cache is None:
            return

        def flush_keeping_batches() -> None:
            for _, handle in self._handles.values():
                if getattr(handle, "_write_to", None) is not None:
                    handle._accepted = True
            flush()
            for batch, handle in list(self._handles.values()):
                job = getattr(handle, "_job", None)
                if job is not None and job not in cache and not handle.ready():
                    dropped(batch)

        pool.flush = flush_keeping_batches
