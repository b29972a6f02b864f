"""The decisions of the I/O loop, turn by turn: settle what has ended, then begin what may begin.

One turn is one visit to the broker: outcomes of finished batches and the taking of the next ones travel
together, on the SQL broker in one transaction.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from cfqueue import clock, signals
from cfqueue.brokers.base import Begin, Begun, Intake, Move, Take, Taken
from cfqueue.errors import BrokerError
from cfqueue.messages import Delivery, OutcomeMemory
from cfqueue.messages.crash import ALONE
from cfqueue.messages.outcome import Outcome

from .admission import Admission
from .batch import Batch
from .isolation import Isolation
from .lines import Line
from .pool import Ended, PoolBridge
from .reports import Reports
from .settlement import Decided, Settlement

logger = logging.getLogger("cfqueue.consumer")

#: Seconds between looks for messages that came back from a dead worker; the reaper needs up to a quarter
#: of a second itself, and together they must stay under one.
_LOOK_FOR_SUSPECTS = 0.25
#: Seconds between looks whether a full pool has grown.
_LOOK_FOR_SLOTS = 1.0


class Dispatcher:
    """The ``Work`` of the I/O loop. Every method runs on its thread, except where said."""

    def __init__(
        self,
        intake: Intake,
        lines: Iterable[Line],
        bridge: PoolBridge,
        *,
        revoked: Callable[[], Any],
        on_revoked: Callable[[str, Delivery], None],
        on_result: Callable[[Line, Delivery, Outcome], None],
    ) -> None:
        self.intake = intake
        self.lines = {line.name: line for line in lines}
        self.bridge = bridge
        self.memory: OutcomeMemory[Outcome] = OutcomeMemory()
        self.settlement = Settlement(self.memory, on_result)
        self.isolation = Isolation()
        self.admission = Admission(self.settlement, self.memory, revoked, on_revoked)
        self.reports = Reports(self.lines, self.settlement, self.isolation, self.memory)
        self.closing = False
        self._rotation = deque(self.lines.values())
        self._lane_busy = False
        self._looked_at = 0.0
        self._look_error = ""
        self._next_due: float | None = None
        self._when_settled: Callable[[], None] | None = None

    # The Work protocol

    def descriptors(self) -> list[int]:
        """The intake's, and one per pool child."""
        broker = self.intake.fileno()
        children = self.bridge.children.descriptors()
        return children if broker < 0 else [broker, *children]

    def readable(self, descriptor: int) -> None:
        """There is news at the broker, so every queue may have something; or a pool child has died."""
        if descriptor == self.intake.fileno():
            self.intake.drain()
            self._everybody_is_hungry()
        elif self.bridge.children.died(descriptor):
            self.bridge.reap()

    def turn(self) -> float | None:
        """Settle and begin; return when to come again (monotonic seconds) if nothing happens before."""
        now = clock.monotonic()
        self._wake_delayed(now)
        plan: list[tuple[Move, Any]] = []
        if self.settlement.due(now):
            plan.extend(self.settlement.moves())
        settling = len(plan)
        if not self.closing and not self.settlement.refused:
            self._run_isolated()
            self._look_for_suspects(now)
            plan.extend(self._openings(now))
        if plan and not self._visit(plan, settling, now):
            return self.settlement.wake_at() or now + 1.0
        if self.closing and self._when_settled is not None and not self.settlement.waiting:
            self._when_settled()
        now = clock.monotonic()
        if self.bridge.autoscaler is not None:
            self.bridge.ask_for_more(self._line_without_slot(now))
        return self._wake_at(now)

    def close(self) -> None:
        """The loop has ended: let go of the broker."""
        self.intake.close()

    # From the pool

    def ended(self, ended: Ended) -> None:
        """A batch has left the pool."""
        batch = ended.batch
        if not self.bridge.ended(batch):
            return
        if batch.lane:
            self._lane_busy = False
        self.reports.take(ended)
        self.isolation.ended(batch)

    # Shutdown

    def stop_taking(self) -> None:
        """Begin nothing more; give back what is held and has not begun."""
        if self.closing:
            return
        self.closing = True
        self.bridge.close()
        for line in self.lines.values():
            self.settlement.give_back(line.batcher.clear())
        self.settlement.give_back(self.isolation.clear())

    def abandon(self) -> None:
        """The pool has ended: what never reported is given back, uncharged."""
        for batch in self.bridge.abandon():
            self.settlement.give_back(batch.everything)
        self.settlement.give_back(self.isolation.clear())

    def when_settled(self, done: Callable[[], None]) -> None:
        """Call ``done`` once nothing is left to be made durable. From any thread, before a wake-up."""
        self._when_settled = done

    # One turn

    def _openings(self, now: float) -> list[tuple[Move, Any]]:
        """What may begin: a held batch whose time has come, or a take, one per free slot."""
        plan: list[tuple[Move, Any]] = []
        free = self.bridge.free
        for _ in range(len(self._rotation)):
            if len(plan) >= free:
                break
            line = self._rotation[0]
            self._rotation.rotate(-1)
            if line.ready(now):
                plan.append((line.begin(), line))
            elif (take := line.take(now, lane_free=not self._lane_busy)) is not None:
                if take.suspicion == ALONE:
                    self._lane_busy = True
                plan.append((take, line))
        return plan

    def _visit(self, plan: list[tuple[Move, Any]], settling: int, now: float) -> bool:
        """Carry the plan out; False when the broker refused, and then nothing has changed."""
        try:
            results = self.intake.turn([move for move, _ in plan])
        except BrokerError as error:
            self._refused(plan[settling:], error, now, settling=settling > 0)
            return False
        if settling:
            origins: list[Decided | None] = [origin for _, origin in plan[:settling]]
            self.settlement.done(list(zip(origins, results[:settling], strict=True)))
        for (move, line), result in zip(plan[settling:], results[settling:], strict=True):
            if isinstance(move, Begin):
                assert isinstance(result, Begun)
                self._begun(line, move, result, now)
            elif isinstance(move, Take):
                assert isinstance(result, Taken)
                self._taken(line, move, result, now)
        return True

    def _refused(
        self, openings: list[tuple[Move, Any]], error: BrokerError, now: float, *, settling: bool
    ) -> None:
        for move, line in openings:
            if isinstance(move, Begin):
                line.hold(list(move.deliveries), now)
            elif isinstance(move, Take) and move.suspicion == ALONE:
                self._lane_busy = False
        if settling:
            self.settlement.failed(error, now)
        else:
            logger.error("cfqueue: nothing can be taken from the broker: %s Trying again in 1 s.", error)

    def _taken(self, line: Line, take: Take, taken: Taken, now: float) -> None:
        line.took(take, len(taken.deliveries))
        if take.suspicion == ALONE and not taken.deliveries:
            self._lane_busy = False
        if taken.busy:
            line.busy(now)
        if not taken.deliveries:
            return
        if not taken.begun:
            line.hold(taken.deliveries, now)
            return
        assert take.batch_id is not None
        self._start(line, take.batch_id, taken.deliveries, take.suspicion)

    def _begun(self, line: Line, begin: Begin, begun: Begun, now: float) -> None:
        lost = {id(delivery) for delivery in begun.lost}
        deliveries = [delivery for delivery in begin.deliveries if id(delivery) not in lost]
        if begun.ok and deliveries:
            self._start(line, begin.batch_id, deliveries, suspicion=0)
            return
        if begun.busy:
            # Not held any longer: a worker whose batch has just ended would be ahead of this one every time,
            # and these messages would never run. At the broker they are first in line again.
            line.busy(now)
            self.settlement.give_back(deliveries)
        elif deliveries:
            line.hold(deliveries, now - line.settings.max_batch_timeout)

    def _start(self, line: Line, batch_id: str, deliveries: list[Delivery], suspicion: int) -> None:
        batch = Batch(batch_id, line.settings, deliveries, suspicion, lane=suspicion == ALONE)
        if self.admission.admit(line, batch):
            self._give(batch)
        elif batch.lane:
            self._lane_busy = False

    def _run_isolated(self) -> None:
        while self.bridge.free > 0 and (batch := self.isolation.next()) is not None:
            line = self.lines[batch.queue]
            if self.admission.admit(line, batch):
                self._give(batch)
            else:
                self.isolation.ended(batch)

    def _give(self, batch: Batch) -> None:
        self.admission.running(batch)
        self.bridge.give(batch)
        if signals.batch_started.receivers:
            signals.batch_started.send(
                sender=batch.queue,
                queue=batch.queue,
                batch_id=batch.id,
                size=len(batch.deliveries),
                suspicion=batch.suspicion,
            )

    # Timers

    def _everybody_is_hungry(self) -> None:
        for line in self.lines.values():
            line.hungry = True
        self._next_due = None
        self._looked_at = 0.0

    def _wake_delayed(self, now: float) -> None:
        if self._next_due is not None and now >= self._next_due:
            self._everybody_is_hungry()

    def _look_for_suspects(self, now: float) -> None:
        if now - self._looked_at < _LOOK_FOR_SUSPECTS:
            return
        self._looked_at = now
        try:
            found = self.intake.suspects(self.lines)
        except BrokerError as error:
            if str(error) != self._look_error:
                self._look_error = str(error)
                logger.exception("cfqueue: cannot look for messages that came back")
            return
        for name, line in self.lines.items():
            line.waiting = found.get(name, {})

    def _wake_at(self, now: float) -> float | None:
        times = [t for line in self.lines.values() if (t := line.wake_at()) is not None]
        if (again := self.settlement.wake_at()) is not None:
            times.append(again)
        if not self.closing and self.bridge.free > 0:
            if self._has_work(now):
                return now
            times.append(self._looked_at + _LOOK_FOR_SUSPECTS)
            if self._next_due is None:
                self._next_due = self._delayed_until(now)
            times.append(self._next_due)
        else:
            # With no slot free a due line cannot begin; the end of a batch wakes the loop. A pool that grows
            # (autoscale, remote control) does not.
            times = [now + _LOOK_FOR_SLOTS] if again is None else [again]
        return min(times, default=None)

    def _line_without_slot(self, now: float) -> Line | None:
        if self.closing or self.bridge.free > 0:
            return None
        wanting = (line for line in self.lines.values() if line.wants(now, lane_free=False))
        return next(wanting, None)

    def _has_work(self, now: float) -> bool:
        return any(line.wants(now, lane_free=not self._lane_busy) for line in self.lines.values())

    def _delayed_until(self, now: float) -> float:
        """Monotonic time at which the earliest delayed message is due; a minute away where there is none."""
        try:
            due = self.intake.next_due(self.lines)
        except BrokerError:
            return now + 1.0
        return now + 60.0 if due is None else now + min(60.0, max(0.0, due - clock.now()))
