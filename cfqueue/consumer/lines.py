"""One ``Line`` per queue: what this worker holds of it, and what it may take next.

Here a batch is formed: the pure ``Batcher`` says when the held messages are due, ``company`` how many
messages of which suspicion may run together, and ``Turns`` whose turn it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from cfqueue.brokers.base import Begin, Take
from cfqueue.messages import Batcher, Delivery
from cfqueue.messages.crash import ALONE, FRESH, SUSPECT, Turns, company
from cfqueue.messages.settle import ConsumerSettings

from .batch import new_batch_id

#: Seconds until a queue that is at its max_concurrency is looked at again: another worker's batch may
#: have ended without this worker hearing of it.
_BUSY_PAUSE = 0.25


class Line:
    """The state of one queue in one worker."""

    def __init__(self, settings: ConsumerSettings, dead_letter_delay: int = 0) -> None:
        self.settings = settings
        self.dead_letter_delay = dead_letter_delay
        self.batcher: Batcher[Delivery] = Batcher(settings.max_batch_size, settings.max_batch_timeout)
        self._turns = Turns()
        #: There may be something to take: set by news, cleared by an empty-handed take.
        self.hungry = True
        #: Suspicion -> best priority of the messages that came back and wait, as far as is known; with the
        #: best priority of the fresh ones, where some came back.
        self.waiting: dict[int, int] = {}
        #: Monotonic time before which taking is pointless (the queue is at its max_concurrency).
        self.not_before = 0.0

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.settings.queue

    @property
    def crash_delay(self) -> float:
        """Seconds before a message that died alone runs again: its retry delay, at least one."""
        return max(1.0, float(self.settings.retry_delay))

    def ready(self, now: float) -> bool:
        """Whether the held messages form a batch now."""
        return now >= self.not_before and len(self.batcher) > 0 and self.batcher.due(now)

    def begin(self) -> Begin:
        """Take the held batch; the caller begins it."""
        return Begin(
            self.name,
            new_batch_id(),
            self.batcher.take(),
            max_concurrency=self.settings.max_concurrency,
            crash_delay=self.crash_delay,
        )

    def take(self, now: float, *, lane_free: bool) -> Take | None:
        """What to ask the broker for next, or None."""
        if now < self.not_before:
            return None
        present = {s: p for s, p in self.waiting.items() if s == SUSPECT or (s == ALONE and lane_free)}
        suspects = bool(present)
        if self.hungry:
            present[FRESH] = self.waiting.get(FRESH, max(present.values(), default=0))
        suspicion = self._turns.choose(present)
        if suspicion is None:
            return None
        self._turns.served(suspicion, suspects_waiting=suspects)
        held = len(self.batcher)
        if suspicion != FRESH:
            return self._take(suspicion, company(self.settings.max_batch_size, suspicion), fill=False)
        if held:
            return self._take(FRESH, self.settings.max_batch_size - held, hold=True)
        return self._take(FRESH, self.settings.max_batch_size, fill=self.settings.max_batch_timeout > 0)

    def _take(self, suspicion: int, limit: int, *, fill: bool = True, hold: bool = False) -> Take:
        return Take(
            self.name,
            suspicion,
            limit,
            batch_id=None if hold else new_batch_id(),
            fill=fill,
            max_concurrency=self.settings.max_concurrency,
            crash_delay=self.crash_delay,
        )

    def hold(self, deliveries: Sequence[Delivery], now: float) -> None:
        """Keep messages until they fill a batch or its time has come."""
        self.batcher.extend(deliveries, now)

    def took(self, take: Take, count: int) -> None:
        """Learn from what a take brought: fewer than asked for means that there are no more now."""
        if take.suspicion == FRESH:
            self.hungry = count == take.limit
        elif count < take.limit:
            self.waiting.pop(take.suspicion, None)

    def busy(self, now: float) -> None:
        """The queue is at its max_concurrency: try again a little later."""
        self.not_before = now + _BUSY_PAUSE
        self.hungry = True

    def wants(self, now: float, *, lane_free: bool) -> bool:
        """Whether ``ready`` or ``take`` would have something to do now."""
        if now < self.not_before:
            return False
        suspects = SUSPECT in self.waiting or (ALONE in self.waiting and lane_free)
        return self.hungry or suspects or self.ready(now)

    def wake_at(self) -> float | None:
        """When this line has something to do by itself (monotonic), or None."""
        times = []
        if (deadline := self.batcher.deadline) is not None:
            times.append(max(deadline, self.not_before))
        if self.not_before and (self.hungry or self.waiting):
            times.append(self.not_before)
        return min(times, default=None)
