"""Looks into the broker from outside, as an operator would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from celery import Celery

from cfqueue import CFQueue

from .environment import Environment


@dataclass(frozen=True, slots=True)
class Left:
    """What a queue holds."""

    waiting: int
    delayed: int
    leased: int

    @property
    def nothing(self) -> bool:
        return not (self.waiting or self.delayed or self.leased)


class Observer:
    """Asks the broker; sends and takes nothing."""

    def __init__(self, environment: Environment) -> None:
        self._queues: Any = CFQueue(Celery("chaos-observer", broker=environment.broker_url)).queues

    def left(self, queue: str) -> Left:
        metrics = self._queues[queue].metrics()
        return Left(metrics.backlog_count, metrics.delayed_count, metrics.in_flight_count)

    def settled(self, queues: tuple[str, ...]) -> bool:
        return all(self.left(queue).nothing for queue in queues)
