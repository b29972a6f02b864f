"""What is not handed to a handler although it was delivered: revoked, expired, known, running, doubled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cfqueue import clock
from cfqueue.messages import Delivery, OutcomeMemory, merge
from cfqueue.messages.crash import overdrawn
from cfqueue.messages.outcome import CRASHED, EXPIRED, Drop, ErrorInfo, Outcome
from cfqueue.messages.settle import buried

from .batch import Batch, memory_key
from .lines import Line
from .settlement import DOUBLED, Settlement

#: Seconds for which a message is returned whose earlier delivery is still running in this worker.
_HELD = 1.0

_LANE_DEATH = ErrorInfo(
    "cfqueue.Crashed", "The worker process died every time while this message was running alone.", None
)


class Admission:
    """Looks at every message once before it runs."""

    def __init__(
        self,
        settlement: Settlement,
        memory: OutcomeMemory[Outcome],
        revoked: Callable[[], Any],
        on_revoked: Callable[[str, Delivery], None],
    ) -> None:
        self._settlement = settlement
        self._memory = memory
        self._revoked = revoked
        self._on_revoked = on_revoked

    def admit(self, line: Line, batch: Batch) -> bool:
        """Leave in the batch what may run and settle the rest; False when nothing is left."""
        now_ms = clock.now_ms()
        revoked = self._revoked()
        admitted: list[Delivery] = []
        for delivery in self._without_twins(batch):
            if (outcome := self._verdict(line, delivery, now_ms, revoked)) is not None:
                self._settlement.decide(line, [delivery], [outcome], batch_id=batch.id)
            elif self._memory.held(memory_key(delivery), delivery.attempts):
                self._settlement.give_back([delivery], _HELD)
            else:
                admitted.append(delivery)
        batch.deliveries = admitted
        self._settle_orphaned_twins(line, batch)
        return bool(admitted)

    def _without_twins(self, batch: Batch) -> list[Delivery]:
        if len({delivery.id for delivery in batch.deliveries}) == len(batch.deliveries):
            return batch.deliveries
        groups = merge(batch.deliveries)
        batch.twins.extend(twin for _, *twins in groups for twin in twins)
        return [group[0] for group in groups]

    def _settle_orphaned_twins(self, line: Line, batch: Batch) -> None:
        """Copies of a message that does not run now are removed like those of one that does: it lives on."""
        if not batch.twins:
            return
        ids = {delivery.id for delivery in batch.deliveries}
        orphaned = [twin for twin in batch.twins if twin.id not in ids]
        if orphaned:
            batch.twins = [twin for twin in batch.twins if twin.id in ids]
            self._settlement.decide(line, orphaned, [DOUBLED] * len(orphaned), batch_id=batch.id)

    def running(self, batch: Batch) -> None:
        """The batch runs from now on; until it is settled, what comes back of it is held."""
        for delivery in batch.deliveries:
            self._memory.start(memory_key(delivery), delivery.attempts)

    def _verdict(self, line: Line, delivery: Delivery, now_ms: int, revoked: Any) -> Outcome | None:
        if delivery.expires_ms is not None and delivery.expires_ms <= now_ms:
            return buried(EXPIRED, line.settings)
        if overdrawn(delivery.attempts, line.settings.max_retries):
            return buried(CRASHED, line.settings, _LANE_DEATH)
        if revoked and delivery.id in revoked:
            self._on_revoked(line.name, delivery)
            return Drop("revoked")
        return self._memory.recall(memory_key(delivery), delivery.attempts, clock.monotonic())
