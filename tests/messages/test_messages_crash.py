"""The crash rules: as rules, and as the bounds that follow from them when workers really die."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfqueue.messages import (
    ALONE,
    FRESH,
    SUSPECT,
    CrashRetry,
    DeadLetter,
    Delivery,
    OutcomeMemory,
    Turns,
    child_died,
    company,
    merge,
    overdrawn,
    returned,
)


class TestRules:
    @given(st.integers(1, 100))
    def test_company(self, batch_size: int) -> None:
        assert company(batch_size, FRESH) == batch_size
        assert company(batch_size, SUSPECT) == math.ceil(batch_size / 8)
        assert company(batch_size, ALONE) == 1

    @given(st.integers(0, 2), st.booleans(), st.booleans(), st.integers(1, 50))
    def test_a_return_charges_the_alone_lane_only(
        self, suspicion: int, started: bool, lane: bool, attempts: int
    ) -> None:
        after = returned(suspicion, started, lane, attempts)
        if not started:
            assert after == (suspicion, attempts)
        elif lane:
            assert after == (ALONE, attempts + 1)
        else:
            assert after == (min(suspicion + 1, 2), attempts)

    @pytest.mark.parametrize("messages", [2, 3, 100])
    def test_a_child_that_dies_with_several_messages_charges_none(self, messages: int) -> None:
        assert child_died(messages, 4, 3, 0) == "isolate"

    @given(st.integers(1, 110), st.integers(0, 100), st.integers(0, 86_400))
    def test_a_child_that_dies_with_one(self, attempts: int, max_retries: int, retry_delay: int) -> None:
        verdict = child_died(1, attempts, max_retries, retry_delay)
        if attempts <= max_retries:
            assert verdict == CrashRetry("retry", max(1, retry_delay), ALONE)
        else:
            assert verdict == DeadLetter("crashed")

    def test_overdrawn_once_every_delivery_was_used(self) -> None:
        assert [overdrawn(attempts, 3) for attempts in (1, 4, 5, 6)] == [False, False, True, True]


class TestTurns:
    def test_suspects_get_every_eighth_batch_the_two_kinds_in_turn(self) -> None:
        turns, served = Turns(), []
        for _ in range(32):
            choice = turns.choose({FRESH: 0, SUSPECT: 0, ALONE: 0})
            assert choice is not None
            turns.served(choice)
            served.append(choice)
        assert served == ([FRESH] * 7 + [SUSPECT] + [FRESH] * 7 + [ALONE]) * 2

    def test_without_fresh_ones_suspects_go_at_once(self) -> None:
        turns, served = Turns(), []
        for _ in range(4):
            choice = turns.choose({SUSPECT: 0, ALONE: 0})
            assert choice is not None
            turns.served(choice)
            served.append(choice)
        assert served == [SUSPECT, ALONE, SUSPECT, ALONE]

    def test_priority_is_strict(self) -> None:
        turns = Turns()
        for _ in range(20):
            assert turns.choose({FRESH: 5, SUSPECT: 4, ALONE: 0}) == FRESH
            turns.served(FRESH)
        assert turns.choose({FRESH: 4, SUSPECT: 5}) == SUSPECT
        assert turns.choose({FRESH: 0, ALONE: 9}) == ALONE

    def test_nobody_waits(self) -> None:
        assert Turns().choose({}) is None

    def test_batches_served_while_no_suspect_waited_do_not_count(self) -> None:
        turns = Turns()
        for _ in range(20):
            turns.served(FRESH, suspects_waiting=False)
        assert turns.choose({FRESH: 0, SUSPECT: 0}) == FRESH

    @given(st.lists(st.sets(st.sampled_from([FRESH, SUSPECT, ALONE])), max_size=80))
    def test_suspects_never_wait_for_more_than_seven_batches(self, turns_of_waiting: list[set[int]]) -> None:
        turns, passed_over = Turns(), 0
        for waiting in turns_of_waiting:
            choice = turns.choose(dict.fromkeys(waiting, 0))
            suspects = bool(waiting - {FRESH})
            assert (choice is None) == (not waiting)
            if choice is None:
                continue
            assert choice in waiting
            turns.served(choice, suspects_waiting=suspects)
            passed_over = passed_over + 1 if choice == FRESH and suspects else 0
            assert passed_over <= 7


@dataclass
class Carried:
    """A message in the small model below."""

    uid: str
    suspicion: int = FRESH
    attempts: int = 1
    runs: int = 0
    deaths: int = 0
    charges: int = 0
    charges_in_company: int = 0
    end: str = ""


@dataclass
class Host:
    """A queue and a worker in which poison kills the process it runs in; everything else is acked.

    ``parent_lives``: only the pool child dies (rule 2). Otherwise the whole worker dies with all batches it
    has in flight, and another takes over (rules 4 and 5).
    """

    messages: list[Carried]
    poison: set[str]
    batch_size: int
    max_retries: int
    parent_lives: bool
    slots: int = 1
    process_deaths: int = 0
    turns: Turns = field(default_factory=Turns)

    def run(self) -> None:
        for _ in range(10_000):
            batches = self.begin()
            if not batches:
                return
            for batch in batches:
                for message in batch:
                    message.runs += 1
            if self.parent_lives:
                for batch in batches:
                    self.child(batch)
            else:
                self.worker(batches)
        raise AssertionError("the messages go round for ever")

    def begin(self) -> list[list[Carried]]:
        batches: list[list[Carried]] = []
        lane_free = True
        taken: set[str] = set()
        while len(batches) < self.slots:
            waiting = [m for m in self.messages if not m.end and m.uid not in taken]
            for message in waiting:
                if overdrawn(message.attempts, self.max_retries):
                    message.end = "crashed"
            waiting = [m for m in waiting if not m.end and (m.suspicion != ALONE or lane_free)]
            choice = self.turns.choose({m.suspicion: 0 for m in waiting})
            if choice is None:
                return batches
            batch = [m for m in waiting if m.suspicion == choice][: company(self.batch_size, choice)]
            self.turns.served(choice, suspects_waiting=any(m.suspicion for m in waiting))
            lane_free = lane_free and choice != ALONE
            taken |= {m.uid for m in batch}
            batches.append(batch)
        return batches

    def child(self, batch: list[Carried]) -> None:
        dead = [m for m in batch if m.uid in self.poison]
        if not dead:
            for message in batch:
                message.end = "acked"
            return
        self.process_deaths += 1
        for message in dead[:1]:
            message.deaths += 1
        verdict = child_died(len(batch), batch[0].attempts, self.max_retries, 0)
        if verdict == "isolate":
            for message in batch:
                message.runs += 1
                self.child([message])
        elif isinstance(verdict, CrashRetry):
            self.charge(batch[0], 1, len(batch))
            batch[0].suspicion = verdict.suspicion
        else:
            batch[0].end = verdict.reason

    def worker(self, batches: list[list[Carried]]) -> None:
        deadly = [m for batch in batches for m in batch if m.uid in self.poison]
        for message in deadly[:1]:
            message.deaths += 1
        if deadly:
            self.process_deaths += 1
        for batch in batches:
            for message in batch:
                if not deadly:
                    message.end = "acked"
                    continue
                lane = message.suspicion == ALONE
                message.suspicion, attempts = returned(message.suspicion, True, lane, message.attempts)
                self.charge(message, attempts - message.attempts, len(batch))

    def charge(self, message: Carried, by: int, size: int) -> None:
        message.attempts += by
        message.charges += by
        if size > 1:
            message.charges_in_company += by


counts = st.integers(1, 30)


class TestBounds:
    @given(counts, st.integers(1, 20), st.integers(0, 5), st.integers(0, 29), st.booleans())
    def test_one_poison_message_and_its_neighbours(
        self, count: int, batch_size: int, max_retries: int, which: int, parent_lives: bool
    ) -> None:
        messages = [Carried(str(n)) for n in range(count)]
        poison = messages[which % count]
        host = Host(messages, {poison.uid}, batch_size, max_retries, parent_lives)
        host.run()
        assert poison.end == "crashed"
        most = (1 if parent_lives else 2) + max_retries + 1
        assert poison.deaths == host.process_deaths <= most
        for neighbour in messages:
            if neighbour is not poison:
                assert neighbour.end == "acked"
                assert neighbour.runs <= 3  # at most twice more
                assert neighbour.charges == 0

    @given(
        counts,
        st.integers(1, 20),
        st.integers(0, 3),
        st.sets(st.integers(0, 29), max_size=5),
        st.booleans(),
        st.integers(1, 4),
    )
    def test_several_poison_messages_and_several_batches_in_flight(
        self, count: int, batch_size: int, max_retries: int, which: set[int], parent_lives: bool, slots: int
    ) -> None:
        messages = [Carried(str(n)) for n in range(count)]
        poison = {str(n) for n in which}
        host = Host(messages, poison, batch_size, max_retries, parent_lives, slots)
        host.run()
        innocents = [m for m in messages if m.uid not in poison]
        assert all(m.end == "crashed" for m in messages if m.uid in poison)
        assert all(m.charges_in_company == 0 for m in messages)  # only what ran alone is charged
        assert sum(m.charges for m in innocents) <= host.process_deaths
        if parent_lives:
            assert all(m.end == "acked" and m.charges == 0 for m in innocents)
        # a process death charges at most one message
        assert sum(m.charges for m in messages) <= host.process_deaths

    @given(st.integers(1, 300), st.integers(1, 100))
    def test_innocents_that_came_back_cost_one_call_an_eighth_batch(
        self, count: int, batch_size: int
    ) -> None:
        host = Host(
            [Carried(str(n), SUSPECT) for n in range(count)], set(), batch_size, 3, parent_lives=False
        )
        calls = 0
        while host_batches := host.begin():
            calls += 1
            host.worker(host_batches)
        assert calls == math.ceil(count / math.ceil(batch_size / 8))


class TestOutcomeMemory:
    def test_an_outcome_is_applied_again_to_that_attempt_only(self) -> None:
        memory: OutcomeMemory[str] = OutcomeMemory()
        memory.start("a", 1)
        assert memory.held("a", 1)
        memory.remember("a", 1, "acked", now=0)
        assert not memory.held("a", 1)
        assert memory.recall("a", 1, now=1) == "acked"
        assert memory.recall("a", 2, now=1) is None
        memory.forget("a", 1)
        assert memory.recall("a", 1, now=1) is None

    def test_forgets_after_an_hour(self) -> None:
        memory: OutcomeMemory[str] = OutcomeMemory()
        memory.remember("a", 1, "acked", now=0)
        assert memory.recall("a", 1, now=3600) == "acked"
        assert memory.recall("a", 1, now=3601) is None
        assert len(memory) == 0

    def test_forgets_the_oldest_beyond_its_size(self) -> None:
        memory: OutcomeMemory[int] = OutcomeMemory(size=3)
        for n in (1, 2, 3, 1, 4):
            memory.remember(str(n), 1, n, now=n)
        assert [memory.recall(str(n), 1, now=5) for n in (1, 2, 3, 4)] == [1, None, 3, 4]

    @given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 2), st.integers(0, 5)), max_size=40))
    def test_agrees_with_a_list(self, steps: list[tuple[str, int, int]]) -> None:
        memory: OutcomeMemory[int] = OutcomeMemory(size=4, seconds=10)
        told: deque[tuple[str, int, int, int]] = deque()
        now = 0
        for number, (uid, attempt, pause) in enumerate(steps):
            now += pause
            memory.remember(uid, attempt, number, now)
            told = deque(t for t in told if t[:2] != (uid, attempt))
            told.append((uid, attempt, number, now))
            if len(told) > 4:
                told.popleft()
            for each in "abcdef":
                for n in (1, 2):
                    known = [t[2] for t in told if t[:2] == (each, n) and now - t[3] <= 10]
                    assert memory.recall(each, n, now) == (known[0] if known else None)


class TestMerge:
    @given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), max_size=12))
    def test_the_same_id_is_handed_over_once_and_all_are_settled(
        self, given_ones: list[tuple[str, int]]
    ) -> None:
        deliveries = [Delivery("q", uid, {}, "1", attempts=attempts) for uid, attempts in given_ones]
        groups = merge(deliveries)
        heads = [group[0] for group in groups]
        assert [head.id for head in heads] == list(dict.fromkeys(uid for uid, _ in given_ones))
        assert all(group[0].attempts == max(each.attempts for each in group) for group in groups)
        assert Counter(id(each) for group in groups for each in group) == Counter(map(id, deliveries))
