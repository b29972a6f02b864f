"""Names every broken promise that an account shows. Offline, and independent of the product.

The rules are those of the reliability reference (I1 … I13), as far as a chaos run can see them:

===  =============================================================================================
I1   every message whose send was confirmed was run to an ack, is dead-lettered, or still waits: lost = 0
I2   nothing runs that was not sent, or whose send said that nothing was stored; bodies are unchanged
I3   attempts are 1 … max_retries + 1 and grow only by a retry or by a charged crash
I4   no message is both acked and dead-lettered, unless a fault stood between the two
I5   a message runs again only because it was retried, or because a fault hit the process that ran it
I6   a delayed message or retry does not run before its delay is over
I7   no batch is larger than max_batch_size or holds a message twice
I10  at the end nothing waits and nothing is leased
I11  while a worker is alive, something moves
I13  a dead letter carries body, id, reason, attempts, first and last failure
C1   innocents are charged at most once for each process death
C2   only a message that kills or hangs its process every time is dead-lettered as crashed
C3   a poison message costs at most 2 + max_retries + 1 process deaths
W1   a worker does not exit by itself
H1   the run did what it was asked to do: sent everything, hit as many processes as it should
===  =============================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, pairwise

from . import plan
from .account import Account, Run, Window, read_events
from .dead_letters import check_dead_letters
from .ledger import Event
from .violation import Violation

#: Seconds after a handler's end in which a kill can still hit the way of its outcome to the broker.
GRACE = 2.0
#: Seconds that a child may outlive its killed parent before it starts a batch it was already given.
ORPHAN = 1.0
#: Seconds by which a delayed message may be early (I6).
EARLY = 1.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What the account is held against."""

    max_batch_size: int = plan.MAX_BATCH_SIZE
    max_retries: dict[str, int] = field(default_factory=lambda: dict(plan.MAX_RETRIES))
    messages: int | None = None  # how many must have been confirmed; None: not asked
    kills: int = 0  # how many kills must have hit


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict: what was counted, and what was broken."""

    figures: dict[str, int]
    violations: list[Violation]

    @property
    def clean(self) -> bool:
        return not self.violations


def check(events: Iterable[Event], rules: Rules | None = None) -> Report:
    """Judge the events of one run."""
    rules = rules or Rules()
    account = read_events(events)
    histories = [History(account, key, runs) for key, runs in account.runs.items()]
    violations = [
        *_lost(account),
        *_phantoms(account),
        *chain.from_iterable(_attempts(history, rules) for history in histories),
        *chain.from_iterable(_repeats(history) for history in histories),
        *_delays(account),
        *_batches(account, rules),
        *check_dead_letters(account, rules.max_retries),
        *_charges(account, histories),
        *_poison(account, rules),
        *_ending(account),
        *_harness(account, rules),
    ]
    return Report(_figures(account, histories, violations), violations)


class History:
    """The runs of one message in the order of their starts, and why each came after the one before."""

    def __init__(self, account: Account, key: str, runs: list[Run]) -> None:
        self.account = account
        self.key = key
        self.runs = runs

    def steps(self) -> Iterator[tuple[Run, Run, str]]:
        """Pairs of neighbours with the cause of the second: retry, fault, zombie, or none known."""
        for before, after in pairwise(self.runs):
            yield before, after, self._cause(before, after)

    def _cause(self, before: Run, after: Run) -> str:
        ended = before.end is not None and before.end <= after.start
        if ended and before.outcome == "retry" and after.attempt == before.attempt + 1:
            return "retry"
        if self._hit(before, after):
            return "fault"
        # A stopped worker that goes on, or a child whose parent was killed, may still start a batch
        # it was given before: an old attempt beside the new owner's.
        if after.attempt <= before.attempt and any(
            window.pid is None and window.since <= after.start <= window.until + GRACE
            for window in self.account.windows[after.worker]
        ):
            return "zombie"
        return "none"

    def _hit(self, run: Run, after: Run) -> bool:
        """Did a fault before ``after`` keep ``run`` from settling?"""
        latest = after.start if run.end is None else min(run.end + GRACE, after.start)
        return any(
            _concerns(window, run) and window.overlaps(run.start - ORPHAN, latest)
            for window in self.account.windows[run.worker]
        )

    def charges(self) -> int:
        """Attempts added by crashes: the growth that no retry of the handler explains."""
        charged = self.runs[0].attempt - 1
        for before, after, cause in self.steps():
            charged += max(0, after.attempt - before.attempt - (cause == "retry"))
        return charged


def _concerns(window: Window, run: Run) -> bool:
    return window.pid is None or window.pid == run.pid


def _lost(account: Account) -> Iterator[Violation]:
    waiting = {key for event in account.left for key in event.get("keys", ())}
    for sent in account.sent.values():
        acked = any(run.outcome == "ack" for run in account.runs.get(sent.key, ()))
        if sent.outcome == "OK" and not acked and sent.key not in account.dead and sent.key not in waiting:
            runs = len(account.runs.get(sent.key, ()))
            yield Violation("I1", f"{sent.key} is lost: confirmed, started {runs} times, never acked")


def _phantoms(account: Account) -> Iterator[Violation]:
    for key in account.sent_twice:
        yield Violation("H1", f"{key} was sent twice by the harness")
    for key in sorted({*account.runs, *account.dead}):
        sent = account.sent.get(key)
        if sent is None:
            yield Violation("I2", f"{key} is a phantom: it was never sent")
            continue
        if sent.outcome == "ERROR":
            yield Violation("I2", f"{key} is a phantom: send said that nothing was stored")
        for run in account.runs.get(key, ()):
            if run.checksum != sent.checksum:
                yield Violation("I2", f"{key} ran with another body than was sent")
            if run.queue != sent.queue:
                yield Violation("I2", f"{key} was sent to {sent.queue} and ran in {run.queue}")
        ids = {run.id for run in account.runs.get(key, ())} | ({sent.id} if sent.id else set())
        if len(ids) > 1:
            yield Violation("I2", f"{key} changed its id: {sorted(ids)}")


def _attempts(history: History, rules: Rules) -> Iterator[Violation]:
    for run in history.runs:
        most = rules.max_retries[run.queue] + 1
        if not 1 <= run.attempt <= most:
            yield Violation("I3", f"{run.key} ran as attempt {run.attempt}; allowed are 1 to {most}")
    for before, after, cause in history.steps():
        if after.attempt < before.attempt and cause != "zombie":
            yield Violation("I3", f"{after.key} went from attempt {before.attempt} back to {after.attempt}")
        elif after.attempt > before.attempt + 1:
            gap = f"{before.attempt} to {after.attempt}"
            if not any(history.account.all_windows()):
                yield Violation("I3", f"{after.key} skipped from attempt {gap}")


def _repeats(history: History) -> Iterator[Violation]:
    for before, after, cause in history.steps():
        if cause == "none":
            state = f"ended with {before.outcome}" if before.end else "had not returned"
            yield Violation(
                "I5",
                f"{after.key} ran again (attempt {before.attempt} in {before.worker}, which {state}; "
                f"then attempt {after.attempt} in {after.worker}), and no fault explains it",
            )


def _delays(account: Account) -> Iterator[Violation]:
    for key, runs in account.runs.items():
        sent = account.sent.get(key)
        if sent is not None and runs[0].start < sent.began + sent.delay - EARLY:
            early = sent.began + sent.delay - runs[0].start
            yield Violation("I6", f"{key} ran {early:.1f} s before its delay of {sent.delay} s was over")
        for before, after in pairwise(runs):
            if before.outcome != "retry" or before.end is None or after.attempt != before.attempt + 1:
                continue
            if before.end <= after.start < before.end + before.delay - EARLY:
                early = before.end + before.delay - after.start
                yield Violation("I6", f"{key} was retried {early:.1f} s before its delay was over")


def _batches(account: Account, rules: Rules) -> Iterator[Violation]:
    for call, runs in account.calls.items():
        if len(runs) > rules.max_batch_size:
            yield Violation("I7", f"batch {call} has {len(runs)} messages, over {rules.max_batch_size}")
        for key, times in Counter(run.key for run in runs).items():
            if times > 1:
                yield Violation("I7", f"batch {call} holds {key} {times} times")


def _deaths(account: Account) -> int:
    """Processes that died, and workers that were stopped (which looks like a death to the others)."""
    kinds = (*plan.KILLS, "died by a handler", "stop")
    return sum(account.faults[kind] for kind in kinds)


def _charges(account: Account, histories: list[History]) -> Iterator[Violation]:
    innocent = sum(h.charges() for h in histories if plan.role_of(h.key) not in plan.KILLERS)
    if innocent > _deaths(account):
        yield Violation("C1", f"innocents were charged {innocent} times for {_deaths(account)} deaths")


def _poison(account: Account, rules: Rules) -> Iterator[Violation]:
    for key, runs in account.runs.items():
        if plan.role_of(key) != "poison":
            continue
        # Faults of the harness that hit one of its runs explain one run more each.
        others = sum(
            any(_concerns(window, run) and window.kind != "dying" for window in account.windows[run.worker])
            for run in runs
        )
        most = 2 + rules.max_retries[runs[0].queue] + 1 + others
        if len(runs) > most:
            yield Violation("C3", f"{key} killed {len(runs)} processes; the bound is {most}")


def _ending(account: Account) -> Iterator[Violation]:
    if not account.left:
        yield Violation("I10", "nobody looked whether anything was left")
    for event in account.left:
        counts = {name: event[name] for name in ("waiting", "delayed", "leased") if event[name]}
        if counts:
            yield Violation("I10", f"{event['queue']} is not empty at the end: {counts}")
    for event in account.stalled:
        yield Violation("I11", f"nothing moved for {event['seconds']:.0f} s: {event.get('what', '')}")
    for event in account.found_dead:
        killed = any(
            window.kind in ("kill-main", "kill-group") or window.pid == event["victim"]
            for window in account.windows[event["worker"]]
        )
        if not killed:
            yield Violation("W1", f"worker {event['worker']} exited with {event.get('status')} by itself")


def _harness(account: Account, rules: Rules) -> Iterator[Violation]:
    confirmed = sum(sent.outcome == "OK" for sent in account.sent.values())
    if rules.messages is not None and confirmed < rules.messages:
        yield Violation("H1", f"only {confirmed} of {rules.messages} messages were confirmed")
    kills = sum(account.faults[kind] for kind in plan.KILLS)
    if kills < rules.kills:
        yield Violation("H1", f"only {kills} of {rules.kills} kills hit a process")


def _figures(account: Account, histories: list[History], violations: list[Violation]) -> dict[str, int]:
    causes = Counter(cause for history in histories for _, _, cause in history.steps())
    reasons = Counter(event["reason"] for events in account.dead.values() for event in events)
    charges = Counter[bool]()
    for history in histories:
        charges[plan.role_of(history.key) in plan.KILLERS] += history.charges()
    return {
        "sent": sum(sent.outcome == "OK" for sent in account.sent.values()),
        "sends refused or uncertain": sum(sent.outcome != "OK" for sent in account.sent.values()),
        "batches": len(account.calls),
        "runs": sum(len(history.runs) for history in histories),
        "retried by the handler": causes["retry"],
        "repeated after a fault": causes["fault"] + causes["zombie"],
        "duplicates (acked more than once)": sum(
            max(0, sum(run.outcome == "ack" for run in history.runs) - 1) for history in histories
        ),
        **{f"dead-lettered: {reason}": count for reason, count in sorted(reasons.items())},
        **{kind: account.faults[kind] for kind in (*plan.KILLS, "term", "stop", "died by a handler")},
        "charges to killers": charges[True],
        "charges to innocents": charges[False],
        "lost": sum(violation.rule == "I1" for violation in violations),
        "phantom": sum(violation.rule == "I2" for violation in violations),
    }
