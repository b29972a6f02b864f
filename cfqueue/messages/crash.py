"""The crash rules as pure functions; the consumer and the transport carry them out.

In one sentence: only a message that ran alone is ever charged for a crash, so a poison message takes no
neighbour with it. The number of a rule is that of the design document ``crash-rules.md``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final, Generic, Literal, NamedTuple, TypeVar

from cfqueue.messages.envelope import Delivery
from cfqueue.messages.outcome import CRASHED, DeadLetter

#: Suspicion, a small number that travels with a message: how often it came back without being settled.
FRESH: Final = 0
SUSPECT: Final = 1
ALONE: Final = 2

#: At least every eighth batch is one of suspects while some wait (rule 3).
SUSPECTS_TURN: Final = 8

#: Seconds before a message whose process died while it was alone is delivered again, at least (rule 2).
MIN_CRASH_DELAY: Final = 1


def company(batch_size: int, suspicion: int) -> int:
    """Rule 3: how many messages of this suspicion run together: all, an eighth, one."""
    if suspicion <= FRESH:
        return batch_size
    return 1 if suspicion >= ALONE else -(-batch_size // 8)


class Returned(NamedTuple):
    """What a message carries after a return."""

    suspicion: int
    attempts: int


def returned(suspicion: int, started: bool, alone_lane: bool, attempts: int) -> Returned:
    """Rules 4 and 5: what a return does to a message where the evidence is exact (SQL, Redis).

    Args:
        suspicion: what it carried when it was leased.
        started: whether its batch had been given to the pool; one merely buffered goes back clean.
        alone_lane: whether it was leased by the alone lane (its suspicion was ``ALONE``).
        attempts: of the delivery that returned.

    """
    if not started:
        return Returned(suspicion, attempts)
    if alone_lane:
        return Returned(ALONE, attempts + 1)
    return Returned(min(ALONE, suspicion + 1), attempts)


class CrashRetry(NamedTuple):
    """Deliver again after ``delay_seconds``, with one attempt more and this suspicion."""

    verdict: Literal["retry"]
    delay_seconds: int
    suspicion: int


def child_died(
    messages: int, attempts: int, max_retries: int, retry_delay: int
) -> Literal["isolate"] | CrashRetry | DeadLetter:
    """Rule 2: what follows when a pool child died, or hit the hard limit, and its parent lives.

    Args:
        messages: how many unsettled messages the child held.
        attempts: of the message, when there was one.
        max_retries: the consumer's.
        retry_delay: the consumer's, in seconds.

    Returns:
        ``"isolate"``: run each of them alone, at once. Else the one message is charged: a ``CrashRetry``,
        or a ``DeadLetter`` with reason ``crashed`` past ``max_retries``.

    """
    if messages > 1:
        return "isolate"
    if attempts > max_retries:
        return DeadLetter(CRASHED)
    return CrashRetry("retry", max(MIN_CRASH_DELAY, retry_delay), ALONE)


def overdrawn(attempts: int, max_retries: int) -> bool:
    """Whether returns have used up every delivery: dead-letter it as ``crashed`` instead of running it."""
    return attempts > max_retries + 1


class Turns:
    """Rule 3: which suspicion is served next.

    Fresh messages go first, but while suspects wait at least every eighth batch is theirs, the two kinds of
    them in turn. Priority is strict: only the kinds whose best waiting priority is the highest take part.
    """

    __slots__ = ("_since_suspects", "_turn_of")

    def __init__(self) -> None:
        self._since_suspects = 0
        self._turn_of = SUSPECT

    def order(self) -> tuple[int, int, int]:
        """Return the three suspicions in the order in which to look for messages."""
        first = self._turn_of
        second = ALONE if first == SUSPECT else SUSPECT
        if self._since_suspects >= SUSPECTS_TURN - 1:
            return (first, second, FRESH)
        return (FRESH, first, second)

    def choose(self, waiting: Mapping[int, int]) -> int | None:
        """Which one to serve.

        Args:
            waiting: suspicion -> the highest priority that waits, for those of which some wait.

        """
        if not waiting:
            return None
        best = max(waiting.values())
        return next(suspicion for suspicion in self.order() if waiting.get(suspicion) == best)

    def served(self, suspicion: int, *, suspects_waiting: bool = True) -> None:
        """Note that a batch was served.

        Args:
            suspicion: of its messages.
            suspects_waiting: False: there were none, so nobody was passed over.

        """
        if suspicion == FRESH:
            self._since_suspects = self._since_suspects + 1 if suspects_waiting else 0
        else:
            self._since_suspects = 0
            self._turn_of = ALONE if suspicion == SUSPECT else SUSPECT


T = TypeVar("T")
Key = tuple[str, int]


class OutcomeMemory(Generic[T]):
    """Rule 8: what a worker has run, until its ack is known to have arrived.

    Keyed by id and attempt. Holds 10,000 entries for an hour; the oldest is forgotten first. No clock: the
    caller passes ``now`` in seconds that only grow.
    """

    def __init__(self, size: int = 10_000, seconds: float = 3600.0) -> None:
        self._size = size
        self._seconds = seconds
        self._outcomes: OrderedDict[Key, tuple[float, T]] = OrderedDict()
        self._running: set[Key] = set()

    def __len__(self) -> int:
        return len(self._outcomes)

    def start(self, message_id: str, attempt: int) -> None:
        """Note that it runs now."""
        self._running.add((message_id, attempt))

    def held(self, message_id: str, attempt: int) -> bool:
        """Whether it runs now: what comes back meanwhile is kept until the outcome is known."""
        return (message_id, attempt) in self._running

    def remember(self, message_id: str, attempt: int, outcome: T, now: float) -> None:
        """Note its outcome: it runs no longer."""
        key = (message_id, attempt)
        self._running.discard(key)
        self._outcomes.pop(key, None)
        self._outcomes[key] = (now, outcome)
        self._expire(now)

    def recall(self, message_id: str, attempt: int, now: float) -> T | None:
        """Return the outcome to apply without running it again; None: it was not run here lately."""
        self._expire(now)
        found = self._outcomes.get((message_id, attempt))
        return None if found is None else found[1]

    def forget(self, message_id: str, attempt: int) -> None:
        """Note that the ack has arrived, or that the run was abandoned."""
        key = (message_id, attempt)
        self._running.discard(key)
        self._outcomes.pop(key, None)

    def _expire(self, now: float) -> None:
        outcomes = self._outcomes
        while outcomes:
            key = next(iter(outcomes))
            if len(outcomes) <= self._size and now - outcomes[key][0] <= self._seconds:
                return
            del outcomes[key]


def merge(deliveries: Iterable[Delivery]) -> list[tuple[Delivery, ...]]:
    """Rule 8: the same id twice in a batch is handed over once, and both are settled.

    Returns:
        One group per id, in order of arrival. The first of a group is the one to hand over, the copy with
        the most attempts; the others are settled by its outcome.

    """
    groups: dict[str, list[Delivery]] = {}
    for delivery in deliveries:
        groups.setdefault(delivery.id, []).append(delivery)
    return [
        tuple(sorted(group, key=lambda each: -each.attempts)) if len(group) > 1 else (group[0],)
        for group in groups.values()
    ]
