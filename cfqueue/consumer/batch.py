"""A batch on its way through the pool, and the report that comes back."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from cfqueue.messages import Delivery
from cfqueue.messages.message import ErrorInfo
from cfqueue.messages.outcome import Outcome
from cfqueue.messages.settle import ConsumerSettings


def new_batch_id() -> str:
    """32 hexadecimal digits; what log lines, ``inspect active`` and the broker's leases show."""
    return uuid.uuid4().hex


def memory_key(delivery: Delivery) -> str:
    """What the outcome memory knows a message by: its dead letter has the same id and starts at attempt 1
    again, but it is on another queue and has not run there.
    """
    return f"{delivery.queue}/{delivery.id}"


@dataclass(slots=True, eq=False)
class Batch:
    """Messages that have begun: leased, started, and given to the pool together."""

    id: str
    settings: ConsumerSettings
    #: What the handler gets, each id once.
    deliveries: list[Delivery]
    suspicion: int = 0
    #: Further deliveries of an id that is in ``deliveries``: settled with the same outcome.
    twins: list[Delivery] = field(default_factory=list)
    #: Set where this is one message of a batch whose child died: the rest of that batch.
    group: Any = None
    #: Whether it occupies this worker's alone lane.
    lane: bool = False

    @property
    def queue(self) -> str:
        """The queue whose handler runs it."""
        return self.settings.queue

    @property
    def everything(self) -> list[Delivery]:
        """Every delivery that has to be settled."""
        return self.deliveries + self.twins if self.twins else self.deliveries


@dataclass(slots=True)
class Report:
    """What a pool child returns for a batch. Plain data: it is pickled."""

    #: One outcome per delivery, in order; None when all are acked, by far the commonest case.
    outcomes: list[Outcome] | None
    #: Seconds that the handler took.
    runtime: float = 0.0
    #: Why the handler failed, where it did.
    error: ErrorInfo | None = None
    #: The child did not run the batch: its parent had died, or the handler is unknown there.
    refused: str | None = None
    #: Positions of messages that were not run because their format is of a later version.
    left_alone: tuple[int, ...] = ()
