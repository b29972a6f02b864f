"""Where a batch is formed: full, or waited for long enough.

A batch is due when it is full, or when ``timeout`` has passed since the first message of a partial one. When
more wait than one batch holds, one full batch goes and the rest waits until it is full or its own time,
counted from that moment, is over. (Reference: miniflare's queue broker; cloudflare-queues section 4.9.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Batcher(Generic[T]):
    """Collects items and says when they are a batch. Has no clock: the caller passes ``now``.

    ``now`` is any number that only grows, in the unit of ``timeout`` (a worker: monotonic seconds).
    """

    __slots__ = ("_items", "_now", "_since", "size", "timeout")

    def __init__(self, size: int, timeout: float) -> None:
        if size < 1:
            raise ValueError(f"A batch holds at least one message, but a size of {size!r} was given.")
        if timeout < 0:
            raise ValueError(f"A batch timeout is not negative, but {timeout!r} was given.")
        self.size = size
        self.timeout = timeout
        self._items: deque[T] = deque()
        self._since: float = 0.0  # when the batch now at the front began to wait
        self._now: float = 0.0  # the latest time seen

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    @property
    def deadline(self) -> float | None:
        """When the batch is due: None while there is nothing, in the past when it is full already."""
        if not self._items:
            return None
        return self._since if len(self._items) >= self.size else self._since + self.timeout

    def add(self, item: T, now: float) -> None:
        """Take one item in."""
        self._now = now
        if not self._items:
            self._since = now
        self._items.append(item)

    def extend(self, items: Iterable[T], now: float) -> None:
        """Take several items in, in order."""
        for item in items:
            self.add(item, now)

    def due(self, now: float) -> bool:
        """Whether ``take`` is to be called now."""
        self._now = now
        deadline = self.deadline
        return deadline is not None and now >= deadline

    def take(self, now: float | None = None) -> list[T]:
        """Return the oldest items, at most ``size``; the rest begins to wait now.

        Args:
            now: the time; without it, the latest that ``add`` or ``due`` was told.

        """
        self._since = self._now if now is None else now
        items = self._items
        return [items.popleft() for _ in range(min(self.size, len(items)))]

    def clear(self) -> list[T]:
        """Return everything that waits, oldest first, and forget it (to give it back to the broker)."""
        items = list(self._items)
        self._items.clear()
        return items
