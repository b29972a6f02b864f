"""What the simulator keeps: its queues, and the records of what happened."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cfqueue.brokers.base import Backlog
from cfqueue.config.model import ConsumerConfig
from cfqueue.messages import Batcher, Delivery
from cfqueue.producer import Queue
from cfqueue.testing.handlers import Handler, QueueResult


@dataclass(frozen=True, slots=True)
class Seen:
    """A message as a handler of the simulator received it."""

    id: str
    body: Any
    attempts: int
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class Delivered:
    """One call of a handler in the simulator."""

    #: Seconds from the simulator's start.
    at: float
    queue: str
    messages: tuple[Seen, ...]
    #: What the handler did.
    result: QueueResult


@dataclass(frozen=True, slots=True)
class Dropped:
    """A message that was given up because its consumer has no dead-letter queue."""

    #: Seconds from the simulator's start.
    at: float
    queue: str
    reason: str
    id: str
    body: Any
    attempts: int
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class Consumer:
    """Who handles the batches of a queue."""

    settings: ConsumerConfig
    handler: Handler
    env: Any
    owner: str


class Line:
    """One queue of a simulator."""

    producer: Queue

    def __init__(self, name: str) -> None:
        self.name = name
        self.delivery_delay = 0
        self.consumer: Consumer | None = None
        #: What is visible and waits. Without a consumer nobody asks whether it is due.
        self.batcher: Batcher[Delivery] = Batcher(1, 0)
        self.running = 0
        self.delayed = 0
        #: The number of the event at which the partial batch is taken.
        self.planned: int | None = None

    def backlog(self) -> Backlog:
        """Count what could be delivered now; delayed and running messages are counted apart."""
        oldest = min((each.timestamp_ms for each in self.batcher), default=None)
        size = sum(each.tag for each in self.batcher)
        return Backlog(len(self.batcher), size, oldest, self.delayed, self.running, 0)
