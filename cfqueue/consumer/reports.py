"""From the end of a batch in the pool to outcomes: what it reported, or what its death means."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from cfqueue.messages import Delivery, OutcomeMemory
from cfqueue.messages.crash import CrashRetry, child_died
from cfqueue.messages.outcome import ErrorInfo, Outcome, Retry
from cfqueue.messages.settle import buried

from .batch import Batch, Report, memory_key
from .isolation import Isolation
from .lines import Line
from .pool import Ended
from .settlement import Settlement, outcomes_for

logger = logging.getLogger("cfqueue.consumer")

#: Seconds for which a message of a later format is left alone before it is looked at again.
_LEFT_ALONE = 60.0
#: Seconds for which a batch is returned that a pool process could not run.
_REFUSED = 1.0


class Reports:
    """Takes every ended batch and decides, by pure rules, what becomes of its messages."""

    def __init__(
        self,
        lines: Mapping[str, Line],
        settlement: Settlement,
        isolation: Isolation,
        memory: OutcomeMemory[Outcome],
    ) -> None:
        self._lines = lines
        self._settlement = settlement
        self._isolation = isolation
        self._memory = memory

    def take(self, ended: Ended) -> None:
        """Settle, isolate or give back the messages of the batch."""
        line = self._lines[ended.batch.queue]
        if ended.report is not None and ended.report.refused is None:
            self._settle(line, ended.batch, ended.report)
        elif ended.lost == "crashed":
            self._crashed(line, ended.batch, ended.detail)
        else:
            why = ended.report.refused if ended.report is not None else ended.detail
            logger.warning(
                "cfqueue: batch %s of queue %s ended without outcomes (%s); its %d messages are given back uncharged",
                ended.batch.id,
                ended.batch.queue,
                why,
                len(ended.batch.everything),
            )
            hold = 0.0 if ended.lost == "refused" else _REFUSED
            self._run_no_longer(ended.batch.deliveries)
            self._settlement.give_back(ended.batch.everything, hold)

    def _settle(self, line: Line, batch: Batch, report: Report) -> None:
        deliveries, outcomes = batch.everything, outcomes_for(batch, report.outcomes)
        if report.left_alone:
            self._leave(batch, [deliveries[i] for i in report.left_alone])
            kept = [i for i in range(len(deliveries)) if i not in set(report.left_alone)]
            deliveries, outcomes = [deliveries[i] for i in kept], [outcomes[i] for i in kept]
        self._settlement.decide(line, deliveries, outcomes, batch_id=batch.id, runtime=report.runtime)

    def _run_no_longer(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._memory.forget(memory_key(delivery), delivery.attempts)

    def _leave(self, batch: Batch, deliveries: list[Delivery]) -> None:
        self._run_no_longer(deliveries)
        self._settlement.give_back(deliveries, _LEFT_ALONE)
        logger.error(
            "cfqueue: %d messages of queue %s are of a later cfqueue format and are left for a newer worker; "
            "update this one",
            len(deliveries),
            batch.queue,
        )

    def _crashed(self, line: Line, batch: Batch, detail: str) -> None:
        """Rule 2: alone, it is charged; in company, everybody runs again alone, uncharged."""
        settings = line.settings
        first = batch.deliveries[0]
        verdict = child_died(
            len(batch.deliveries), first.attempts, settings.max_retries, settings.retry_delay
        )
        if verdict == "isolate":
            logger.warning(
                "cfqueue: a pool process died under batch %s of queue %s (%s); its %d messages run again one "
                "at a time, uncharged",
                batch.id,
                batch.queue,
                detail,
                len(batch.deliveries),
            )
            self._run_no_longer(batch.deliveries)
            self._isolation.add(line, batch)
            return
        error = ErrorInfo("cfqueue.Crashed", f"The pool process died while this message ran alone: {detail}")
        outcome: Outcome
        suspicion: dict[str, int] = {}
        if isinstance(verdict, CrashRetry):
            outcome = Retry(verdict.delay_seconds, error)
            suspicion[first.id] = verdict.suspicion
        else:
            outcome = buried(verdict.reason, settings, error)
        logger.warning(
            "cfqueue: a pool process died while message %s of queue %s ran alone (%s), attempt %d of %d",
            first.id,
            batch.queue,
            detail,
            first.attempts,
            settings.max_retries + 1,
        )
        self._settlement.decide(
            line, batch.everything, outcomes_for(batch, [outcome]), batch_id=batch.id, suspicion=suspicion
        )
