"""After a child has died under a batch: its messages run again at once, one at a time, uncharged.

Only a message whose child dies while it is alone is charged (``cfqueue.messages.crash``, rule 2). The
messages of one crashed batch follow each other, so the group never holds more than one slot and never
exceeds its queue's ``max_concurrency``.
"""

from __future__ import annotations

from collections import deque

from cfqueue.messages import Delivery

from .batch import Batch
from .lines import Line


class Group:
    """The rest of one crashed batch."""

    def __init__(self, line: Line, batch: Batch) -> None:
        self.line = line
        #: The lease is still that of the crashed batch: it counts as one batch in flight.
        self.batch_id = batch.id
        self.waiting: deque[Delivery] = deque(batch.everything)
        self.running = False


class Isolation:
    """The groups of this worker."""

    def __init__(self) -> None:
        self._groups: deque[Group] = deque()

    def add(self, line: Line, batch: Batch) -> None:
        """Take in a batch whose child died."""
        self._groups.append(Group(line, batch))

    def next(self) -> Batch | None:
        """A message to run alone now, as a batch of its own, or None."""
        for _ in range(len(self._groups)):
            group = self._groups[0]
            self._groups.rotate(-1)
            if group.running:
                continue
            if not group.waiting:
                self._groups.remove(group)
                continue
            group.running = True
            delivery = group.waiting.popleft()
            twins = [d for d in group.waiting if d.id == delivery.id]
            for twin in twins:
                group.waiting.remove(twin)
            return Batch(
                group.batch_id, group.line.settings, [delivery], delivery.suspicion, twins=twins, group=group
            )
        return None

    def ended(self, batch: Batch) -> None:
        """The message that ran alone has ended, one way or the other."""
        if batch.group is not None:
            batch.group.running = False

    def clear(self) -> list[Delivery]:
        """Everything that has not run, to be given back; the worker is stopping."""
        left = [delivery for group in self._groups for delivery in group.waiting]
        self._groups.clear()
        return left

    def __len__(self) -> int:
        return sum(len(group.waiting) + group.running for group in self._groups)
