"""Outcomes on their way to the broker. **Here a message is acked**: nowhere else is a lease ended.

    ran ──▶ waiting ──▶ settled
              │  ▲
              └──┘ the broker refused: the outcome is kept and only its settlement is tried again,
                   never the handler

An outcome is dropped from here when the broker has made it durable, or has said that the lease had
ended (another worker owns the message now; our late result changes nothing).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cfqueue import clock, signals
from cfqueue.brokers.base import GiveBack, Move, Settle
from cfqueue.errors import BrokerError
from cfqueue.messages import Delivery, OutcomeMemory
from cfqueue.messages.outcome import ACK, Ack, DeadLetter, Drop, Outcome, Retry

from .batch import Batch, memory_key
from .lines import Line

logger = logging.getLogger("cfqueue.consumer")

#: Seconds between tries after the broker refused: doubled each time, from the first to the second.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
#: The outcome of a revoked message; its sender was told when it was found to be revoked.
_REVOKED = Drop("revoked")
#: The outcome of a twin: it is removed, and the message that it doubles lives on or is done. Not an ack: that
#: would be announced, and written as the message's result.
DOUBLED = Drop("doubled")


@dataclass(slots=True, eq=False)
class Decided:
    """The outcomes of one batch, waiting to become durable."""

    line: Line
    items: list[tuple[Delivery, Outcome]]
    batch_id: str
    runtime: float
    at: float
    #: Suspicion that a retried message carries on with; 0 unless it died alone.
    suspicion: dict[str, int]
    all_acked: bool = False

    def move(self) -> Settle:
        """What to ask of the broker."""
        return Settle(
            self.line.name,
            self.items,
            self.line.settings.dead_letter_queue,
            self.line.dead_letter_delay,
            at=self.at,
            all_acked=self.all_acked,
            suspicion=self.suspicion,
        )


class Settlement:
    """The table of outcomes and give-backs that the broker has not yet taken."""

    def __init__(
        self, memory: OutcomeMemory[Outcome], on_result: Callable[[Line, Delivery, Outcome], None]
    ) -> None:
        self._memory = memory
        self._on_result = on_result
        self._decided: list[Decided] = []
        self._returned: list[GiveBack] = []
        self._pause = 0.0
        self._not_before = 0.0
        self.counts: Counter[str] = Counter()

    def decide(
        self,
        line: Line,
        deliveries: Sequence[Delivery],
        outcomes: Sequence[Outcome],
        *,
        batch_id: str = "",
        runtime: float = 0.0,
        suspicion: dict[str, int] | None = None,
    ) -> None:
        """Keep the outcomes until they are durable."""
        items = list(zip(deliveries, outcomes, strict=True))
        all_acked = all(outcome is ACK for outcome in outcomes)
        self._decided.append(Decided(line, items, batch_id, runtime, clock.now(), suspicion or {}, all_acked))

    def give_back(self, deliveries: Sequence[Delivery], hold: float = 0.0) -> None:
        """Return messages uncharged; ``hold`` seconds pass before they are due again. The memory keeps what it
        knows of them: one may be given back because an earlier delivery of it still runs here.
        """
        if deliveries:
            self._returned.append(GiveBack(list(deliveries), hold))

    @property
    def waiting(self) -> bool:
        """Whether anything is still to be made durable."""
        return bool(self._decided or self._returned)

    @property
    def refused(self) -> bool:
        """Whether the broker has refused outcomes: then nothing new is taken until it takes them."""
        return self._pause > 0

    def due(self, now: float) -> bool:
        """Whether to try now."""
        return self.waiting and now >= self._not_before

    def wake_at(self) -> float | None:
        """When to try again (monotonic), or None."""
        return self._not_before if self.waiting else None

    def moves(self) -> list[tuple[Move, Decided | None]]:
        """What to ask of the broker, each with its origin."""
        found: list[tuple[Move, Decided | None]] = [(decided.move(), decided) for decided in self._decided]
        found.extend((back, None) for back in self._returned)
        return found

    def done(self, results: Sequence[tuple[Decided | None, object]]) -> None:
        """The broker carried out ``moves()``; forget them and tell observers."""
        settled = self._decided
        self._decided, self._returned = [], []
        if self._pause:
            logger.warning("cfqueue: the broker takes outcomes again")
        self._pause = self._not_before = 0.0
        late = {id(decided): fenced for decided, fenced in results if decided is not None and fenced}
        for decided in settled:
            for delivery, _ in decided.items:
                self._memory.forget(memory_key(delivery), delivery.attempts)
            if (fenced := late.get(id(decided))) is not None:
                self._remember(decided, fenced)
            self._announce(decided)
            self._tell_senders(decided)

    def failed(self, error: BrokerError, now: float) -> None:
        """The broker refused: keep everything, try again later."""
        self._pause = min(_LONGEST_PAUSE, self._pause * 2 or _FIRST_PAUSE)
        self._not_before = now + self._pause
        logger.error(
            "cfqueue: the broker did not take the outcomes of %d batches (%s). They are kept, nothing new "
            "is taken, and the settlement is tried again in %.1f s; no handler runs twice for it.",
            len(self._decided),
            error,
            self._pause,
        )

    def _remember(self, decided: Decided, fenced: object) -> None:
        """Late results: another worker owns the messages now. Should they come back here, they are known."""
        lost = {id(delivery) for delivery in fenced} if isinstance(fenced, list) else set()
        for delivery, outcome in decided.items:
            # A twin may have the attempts of the message itself, whose outcome is the one to be known.
            if id(delivery) in lost and outcome != DOUBLED:
                self._memory.remember(memory_key(delivery), delivery.attempts, outcome, clock.monotonic())
        before = len(decided.items)
        # What changed nothing is not announced either: no result, no signal, no line about a dead letter.
        decided.items = [item for item in decided.items if id(item[0]) not in lost]
        logger.warning(
            "cfqueue: %d of %d outcomes of batch %s on queue %s came too late: their leases had ended and "
            "another worker has the messages. Nothing was changed.",
            len(lost),
            before,
            decided.batch_id,
            decided.line.name,
        )

    def _tell_senders(self, decided: Decided) -> None:
        """Final outcomes of messages whose sender waits for one in the result backend."""
        for delivery, outcome in decided.items:
            if delivery.headers.get("ignore_result") is False and outcome not in (_REVOKED, DOUBLED):
                self._on_result(decided.line, delivery, outcome)

    def _announce(self, decided: Decided) -> None:
        acked = retried = dropped = 0
        reasons: Counter[str] = Counter()
        if decided.all_acked:
            acked = len(decided.items)
        for delivery, outcome in () if decided.all_acked else decided.items:
            match outcome:
                case Ack():
                    acked += 1
                case Retry():
                    retried += 1
                case DeadLetter(reason=reason):
                    reasons[reason] += 1
                    _report_dead_letter(decided.line, delivery, outcome)
                case Drop(reason="doubled"):
                    logger.info(
                        "cfqueue: removed a further copy of message %s of queue %s",
                        delivery.id,
                        decided.line.name,
                    )
                case Drop(reason="revoked"):
                    dropped += 1
                    logger.info("cfqueue: message %s of queue %s was revoked", delivery.id, decided.line.name)
                case Drop(reason=reason):
                    dropped += 1
                    logger.warning(
                        "cfqueue: dropped message %s of queue %s after %d attempts (%s): the queue has no "
                        "dead-letter queue",
                        delivery.id,
                        decided.line.name,
                        delivery.attempts,
                        reason,
                    )
        self.counts.update(acked=acked, retried=retried, dropped=dropped, dead_lettered=reasons.total())
        signals.batch_settled.send(
            sender=decided.line.name,
            queue=decided.line.name,
            batch_id=decided.batch_id,
            acked=acked,
            retried=retried,
            dead_lettered=dict(reasons),
            dropped=dropped,
            runtime=decided.runtime,
        )


def _report_dead_letter(line: Line, delivery: Delivery, outcome: DeadLetter) -> None:
    to = line.settings.dead_letter_queue
    logger.warning(
        "cfqueue: moved message %s of queue %s to dead-letter queue %s after %d attempts (%s)",
        delivery.id,
        line.name,
        to,
        delivery.attempts,
        outcome.reason,
    )
    signals.message_dead_lettered.send(
        sender=line.name, queue=line.name, message_id=delivery.id, reason=outcome.reason, to=to
    )


def outcomes_for(batch: Batch, outcomes: Sequence[Outcome] | None) -> list[Outcome]:
    """One outcome per delivery of the batch. A twin is removed: the message it doubles lives on or is done."""
    found: list[Outcome] = list(outcomes) if outcomes is not None else [ACK] * len(batch.deliveries)
    if batch.twins:
        found.extend([DOUBLED] * len(batch.twins))
    return found
