"""The checker itself: a clean account passes, and every kind of broken promise is found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from . import plan
from .checker import Report, Rules, check
from .ledger import Event, Ledger, checksum, read


class Story:
    """Writes an account by hand; ``t`` is the present moment."""

    def __init__(self) -> None:
        self.t = 1000.0
        self.events: list[Event] = []
        self._calls = 0

    def write(self, kind: str, *, pid: int = 1, **fields: Any) -> None:
        self.events.append({"kind": kind, "t": self.t, "pid": pid, **fields})

    def later(self, seconds: float) -> None:
        self.t += seconds

    def send(self, *keys: str, outcome: str | None = "OK", delay: float = 0, queue: str = plan.MAIN) -> None:
        sums = [checksum(key) for key in keys]
        self.write("sending", keys=keys, sums=sums, delays=[delay] * len(keys), queue=queue)
        if outcome:
            ids = [f"id of {key}" for key in keys] if outcome == "OK" else None
            self.write("sent", keys=keys, outcome=outcome, ids=ids, error="")

    def start(
        self, *messages: tuple[str, int] | str, worker: str = "w.1", pid: int = 100, queue: str = plan.MAIN
    ) -> str:
        self.later(0.01)
        self._calls += 1
        pairs = [message if isinstance(message, tuple) else (message, 1) for message in messages]
        fields = [[key, f"id of {key}", attempt, checksum(key)] for key, attempt in pairs]
        self.write("start", run=f"c{self._calls}", worker=worker, pid=pid, queue=queue, messages=fields)
        return f"c{self._calls}"

    def end(self, call: str, retried: dict[str, int] | None = None) -> None:
        """``retried`` gives delays by key; the rest is acked."""
        self.later(0.01)
        start = next(event for event in self.events if event.get("run") == call)
        found = []
        for key, *_ in start["messages"]:
            delay = (retried or {}).get(key)
            found.append([key, "ack", 0] if delay is None else [key, "retry", delay])
        self.write("end", pid=start["pid"], run=call, outcomes=found)

    def ran(
        self,
        *messages: tuple[str, int] | str,
        worker: str = "w.1",
        pid: int = 100,
        retried: dict[str, int] | None = None,
    ) -> None:
        self.end(self.start(*messages, worker=worker, pid=pid), retried)

    def fault(self, fault: str, worker: str = "w.1", victim: int = 100, **fields: Any) -> None:
        self.later(0.01)
        self.write("fault", fault=fault, worker=worker, victim=victim, **fields)

    def dying(self, call: str, key: str, worker: str = "w.1", pid: int = 100) -> None:
        self.later(0.01)
        self.write("dying", run=call, worker=worker, pid=pid, key=key, how=plan.role_of(key))

    def dead(self, key: str, reason: str, attempts: int = 4, **changes: Any) -> None:
        self.later(0.01)
        headers = {
            "cfq-reason": reason,
            "cfq-origin": plan.MAIN,
            "cfq-failed-attempts": attempts,
            "cfq-first-failure": int(self.t * 1000) - 5,
            "cfq-last-failure": int(self.t * 1000) - 1,
        }
        event: Event = {"key": key, "id": f"id of {key}", "sum": checksum(key)}
        self.write("dead", **(event | {"reason": reason, "headers": headers} | changes))

    def verdict(self, rules: Rules | None = None) -> Report:
        for queue in plan.WORK_QUEUES:
            self.write("left", queue=queue, waiting=0, delayed=0, leased=0)
        return check(self.events, rules)


@pytest.fixture
def story() -> Story:
    return Story()


def broken(report: Report) -> set[str]:
    return {violation.rule for violation in report.violations}


def test_a_quiet_run_is_clean(story: Story) -> None:
    story.send("1.ok", "2.retry", "3.fail")
    story.ran("1.ok", "2.retry", "3.fail", retried={"2.retry": 0, "3.fail": 0})
    story.ran(("2.retry", 2), ("3.fail", 2), retried={"3.fail": 0})
    story.ran(("3.fail", 3), retried={"3.fail": 0})
    story.ran(("3.fail", 4), retried={"3.fail": 0})
    story.dead("3.fail", "retries_exhausted")
    report = story.verdict(Rules(messages=3))
    assert report.clean, report.violations
    assert report.figures["lost"] == report.figures["phantom"] == 0
    assert report.figures["duplicates (acked more than once)"] == 0
    assert report.figures["retried by the handler"] == 4


def test_a_run_with_explained_repeats_is_clean(story: Story) -> None:
    story.send("1.ok", "2.ok", "3.ok", "4.ok", "5.poison")
    story.send("6.ok", outcome=None)  # the producer never learned what became of it
    story.ran("1.ok")
    story.fault("kill-main")  # the ack of 1 was under way
    story.start("2.ok", worker="w.2")
    story.fault("stop", worker="w.2")
    story.later(5)
    story.ran("1.ok", "2.ok", worker="v.1")
    story.fault("cont", worker="w.2")
    story.end("c2")  # fenced: 2 was acked by its new owner
    call = story.start("3.ok", "5.poison", worker="v.1", pid=7)
    story.dying(call, "5.poison", worker="v.1", pid=7)
    story.ran("3.ok", worker="v.1", pid=8)
    for attempt in (1, 2, 3, 4):
        call = story.start(("5.poison", attempt), worker="v.1", pid=10 + attempt)
        story.dying(call, "5.poison", worker="v.1", pid=10 + attempt)
    story.dead("5.poison", "crashed")
    story.ran(("4.ok", 2), worker="v.1", pid=8)  # charged by a crash before its handler began
    report = story.verdict(Rules(messages=5, kills=1))
    assert report.clean, report.violations
    assert report.figures["charges to innocents"] == 1
    assert report.figures["charges to killers"] == 3
    assert report.figures["duplicates (acked more than once)"] == 2


def test_a_zombie_that_starts_an_old_attempt_is_explained(story: Story) -> None:
    story.send("1.ok")
    story.fault("stop", worker="w.1")
    story.later(5)
    story.ran("1.ok", worker="v.1")
    story.later(3)
    story.fault("cont", worker="w.1")
    story.ran("1.ok", worker="w.1")
    assert story.verdict().clean


def breaches() -> Iterator[tuple[str, str, Any]]:
    """Name, rule and story of each broken promise."""

    def lost_before_it_ran(s: Story) -> None:
        s.send("1.ok")

    def lost_after_a_crash(s: Story) -> None:
        s.send("1.ok")
        s.start("1.ok")
        s.fault("kill-main")

    def lost_after_a_retry(s: Story) -> None:
        s.send("1.retry")
        s.ran("1.retry", retried={"1.retry": 0})

    yield "never run", "I1", lost_before_it_ran
    yield "not run again after a crash", "I1", lost_after_a_crash
    yield "not run again after a retry", "I1", lost_after_a_retry

    def never_sent(s: Story) -> None:
        s.ran("1.ok")

    def refused(s: Story) -> None:
        s.send("1.ok", outcome="ERROR")
        s.ran("1.ok")

    def other_body(s: Story) -> None:
        s.send("1.ok")
        s.ran("1.ok")
        s.events[2]["messages"][0][3] += 1

    def other_id(s: Story) -> None:
        s.send("1.ok")
        s.ran("1.ok")
        s.events[2]["messages"][0][1] = "another"

    def other_queue(s: Story) -> None:
        s.send("1.ok", queue=plan.HANG)
        s.ran("1.ok")

    def never_sent_but_dead(s: Story) -> None:
        s.dead("1.fail", "retries_exhausted")

    yield "phantom", "I2", never_sent
    yield "phantom after a refused send", "I2", refused
    yield "another body", "I2", other_body
    yield "another id", "I2", other_id
    yield "another queue", "I2", other_queue
    yield "phantom in the dead-letter queue", "I2", never_sent_but_dead

    def too_many(s: Story) -> None:
        s.send("1.fail")
        for attempt in range(1, 6):
            s.ran(("1.fail", attempt), retried={"1.fail": 0})
        s.dead("1.fail", "retries_exhausted")

    def from_zero(s: Story) -> None:
        s.send("1.ok")
        s.ran(("1.ok", 0))

    def skipped(s: Story) -> None:
        s.send("1.retry")
        s.ran("1.retry", retried={"1.retry": 0})
        s.ran(("1.retry", 3))

    def backwards(s: Story) -> None:
        s.send("1.retry")
        s.ran("1.retry", retried={"1.retry": 0})
        s.ran(("1.retry", 2), retried={"1.retry": 0})
        s.fault("kill-main")
        s.ran(("1.retry", 1), worker="w.2")

    yield "attempt beyond max_retries + 1", "I3", too_many
    yield "attempt 0", "I3", from_zero
    yield "skipped attempt", "I3", skipped
    yield "attempt went back", "I3", backwards

    def acked_and_dead(s: Story) -> None:
        s.send("1.fail")
        s.ran("1.fail")
        s.dead("1.fail", "retries_exhausted")

    def dead_twice(s: Story) -> None:
        s.send("1.fail")
        s.dead("1.fail", "retries_exhausted")
        s.dead("1.fail", "retries_exhausted")

    yield "acked and dead-lettered", "I4", acked_and_dead
    yield "dead-lettered twice", "I4", dead_twice

    def again_after_an_ack(s: Story) -> None:
        s.send("1.ok")
        s.ran("1.ok")
        s.ran("1.ok", worker="v.1")

    def again_while_it_runs(s: Story) -> None:
        s.send("1.ok")
        call = s.start("1.ok")
        s.later(10)
        s.ran("1.ok", worker="v.1")
        s.end(call)

    def again_long_before_the_fault(s: Story) -> None:
        s.send("1.ok")
        s.ran("1.ok")
        s.later(10)
        s.fault("kill-main")
        s.ran("1.ok", worker="v.1")

    def again_for_another_childs_death(s: Story) -> None:
        s.send("1.ok")
        s.ran("1.ok", pid=100)
        s.fault("kill-child", victim=101)
        s.ran("1.ok")

    def again_by_a_late_settle(s: Story) -> None:
        s.send("1.retry")
        late = s.start("1.retry")
        s.fault("stop")
        s.later(5)
        call = s.start("1.retry", worker="v.1")
        s.fault("cont")
        s.end(late, retried={"1.retry": 0})
        s.ran(("1.retry", 2))
        s.end(call)

    def same_attempt_after_a_retry(s: Story) -> None:
        s.send("1.retry")
        s.ran("1.retry", retried={"1.retry": 0})
        s.ran("1.retry")

    yield "run again after its ack", "I5", again_after_an_ack
    yield "run again while it runs", "I5", again_while_it_runs
    yield "run again, fault much later", "I5", again_long_before_the_fault
    yield "run again, another child died", "I5", again_for_another_childs_death
    yield "late settle not fenced", "I5", again_by_a_late_settle
    yield "same attempt after a retry", "I5", same_attempt_after_a_retry

    def early(s: Story) -> None:
        s.send("1.ok", delay=5)
        s.later(2)
        s.ran("1.ok")

    def retried_early(s: Story) -> None:
        s.send("1.later")
        s.ran("1.later", retried={"1.later": 10})
        s.later(5)
        s.ran(("1.later", 2))

    yield "run before its delay", "I6", early
    yield "retried before its delay", "I6", retried_early

    def large(s: Story) -> None:
        keys = [f"{number}.ok" for number in range(11)]
        s.send(*keys)
        s.ran(*keys)

    def twice_in_a_batch(s: Story) -> None:
        s.send("1.ok")
        s.ran("1.ok", "1.ok")

    yield "batch too large", "I7", large
    yield "twice in a batch", "I7", twice_in_a_batch

    def something_left(s: Story) -> None:
        s.write("left", queue=plan.MAIN, waiting=0, delayed=0, leased=2)

    def stalled(s: Story) -> None:
        s.write("stalled", seconds=31.0)

    yield "something left", "I10", something_left
    yield "no progress", "I11", stalled

    def dead_with(reason: str = "retries_exhausted", key: str = "1.fail", **changes: Any) -> Any:
        def tell(s: Story) -> None:
            s.send(key)
            s.dead(key, reason, **changes)

        return tell

    yield "dead letter with another body", "I13", dead_with(sum=1)
    yield "dead letter with another reason", "I13", dead_with("expired")
    yield "dead letter too early", "I13", dead_with(attempts=2)
    yield "dead letter of a message that works", "I13", dead_with(key="1.ok")
    yield "dead letter without headers", "I13", dead_with(headers={})
    yield "dead letter with another id", "I13", dead_with(id="another")

    def failed_before_it_was_sent(s: Story) -> None:
        s.send("1.fail")
        s.dead("1.fail", "retries_exhausted")
        s.events[-1]["headers"]["cfq-first-failure"] = 5

    yield "dead letter with a strange time", "I13", failed_before_it_was_sent
    yield "innocent dead-lettered as crashed", "C2", dead_with("crashed", key="1.ok")
    yield "failing message dead-lettered as crashed", "C2", dead_with("crashed")

    def charged_neighbours(s: Story) -> None:
        keys = [f"{number}.ok" for number in range(5)]
        s.send(*keys)
        s.start(*keys)
        s.fault("kill-main")
        s.ran(*[(key, 2) for key in keys], worker="w.2")

    def endless_poison(s: Story) -> None:
        s.send("1.poison")
        for turn in range(7):
            call = s.start("1.poison", pid=200 + turn)
            s.dying(call, "1.poison", pid=200 + turn)
        s.dead("1.poison", "crashed")

    yield "neighbours charged for one death", "C1", charged_neighbours
    yield "poison without end", "C3", endless_poison

    def exits(s: Story) -> None:
        s.fault("found-dead", victim=50, status=1)

    yield "a worker exits by itself", "W1", exits


@pytest.mark.parametrize(
    ("rule", "tell"), [pytest.param(rule, tell, id=name) for name, rule, tell in breaches()]
)
def test_each_broken_promise_is_found(story: Story, rule: str, tell: Any) -> None:
    tell(story)
    assert rule in broken(story.verdict())


def test_a_run_that_did_less_than_asked_proves_nothing(story: Story) -> None:
    story.send("1.ok")
    story.ran("1.ok")
    texts = [violation.text for violation in story.verdict(Rules(messages=2, kills=1)).violations]
    assert texts == ["only 1 of 2 messages were confirmed", "only 0 of 1 kills hit a process"]


def test_nobody_looking_at_the_end_proves_nothing(story: Story) -> None:
    assert broken(check(story.events)) == {"I10"}


def test_a_worker_killed_by_its_handler_did_not_exit_by_itself(story: Story) -> None:
    story.send("1.exit")
    call = story.start("1.exit", pid=50)
    story.dying(call, "1.exit", pid=50)
    story.fault("found-dead", victim=50, status=1)
    story.ran("1.exit", worker="w.2")
    assert story.verdict().clean


def test_what_still_waits_is_not_lost(story: Story) -> None:
    story.send("1.ok")
    story.write("left", queue=plan.MAIN, waiting=1, delayed=0, leased=0, keys=["1.ok"])
    assert broken(story.verdict()) == {"I10"}


def test_the_ledger_keeps_events_of_several_processes_in_order(tmp_path: Any) -> None:
    first, second = Ledger(tmp_path, "a"), Ledger(tmp_path, "b")
    for number in range(3):
        first.write("fault", number=number)
        second.write("fault", number=number)
    events = read(tmp_path)
    assert [event["number"] for event in events] == [0, 0, 1, 1, 2, 2]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_plan_is_the_same_for_the_same_seed() -> None:
    assert plan.messages(7, 2000) == plan.messages(7, 2000)
    assert plan.messages(7, 2000) != plan.messages(8, 2000)
    roles = {message.role for message in plan.messages(7, 2000)}
    assert plan.KILLERS | set(plan.SHARES) | {"ok"} == roles
    faults = plan.faults(7, 60, 3.0)
    assert sum(fault.kind in plan.KILLS for fault in faults) == 60
    assert any(fault.kind == "stop" and fault.seconds > 3.0 for fault in faults)
