"""Watching pool children die, at once.

Celery watches a pipe that closes when a child exits; but the pipe closes a moment before the child can
be waited for, so its look may come too early, and the next one follows five seconds later (measured).
A pidfd becomes readable when the child can be waited for, not before. Linux only: elsewhere Celery's own
interval applies.
"""

from __future__ import annotations

import os


class Children:
    """One descriptor per pool child that has run a batch. Filled on Celery's thread, read on ours."""

    def __init__(self) -> None:
        self._by_pid: dict[int, int] = {}
        self._by_descriptor: dict[int, int] = {}

    def watch(self, pid: int) -> bool:
        """Watch a child; False when it is watched already or cannot be."""
        if pid in self._by_pid or not hasattr(os, "pidfd_open"):
            return False
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return False  # gone already: the pool's own look finds it
        self._by_descriptor[descriptor] = pid
        self._by_pid[pid] = descriptor
        return True

    def descriptors(self) -> list[int]:
        """What becomes readable when a child dies."""
        return list(self._by_descriptor)

    def died(self, descriptor: int) -> bool:
        """The descriptor became readable: forget the child. False when it was not one of ours."""
        pid = self._by_descriptor.pop(descriptor, None)
        if pid is None:
            return False
        self._by_pid.pop(pid, None)
        os.close(descriptor)
        return True

    def close(self) -> None:
        """Forget all children."""
        for descriptor in self.descriptors():
            self.died(descriptor)
