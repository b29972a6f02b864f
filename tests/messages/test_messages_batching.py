"""The Batcher: full, or waited for long enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cfqueue.messages import Batcher


class TestBatcher:
    def test_a_partial_batch_waits_from_its_first_item(self) -> None:
        batcher: Batcher[str] = Batcher(3, 5)
        assert batcher.deadline is None
        assert not batcher.due(100)
        batcher.add("a", 10)
        batcher.add("b", 14)
        assert batcher.deadline == 15
        assert not batcher.due(14.9)
        assert batcher.due(15)
        assert batcher.take() == ["a", "b"]
        assert not batcher.due(100)

    def test_a_full_batch_is_due_at_once_and_the_rest_begins_to_wait(self) -> None:
        batcher: Batcher[int] = Batcher(5, 1)
        batcher.extend(range(7), 0)
        assert batcher.due(0)
        assert batcher.take() == [0, 1, 2, 3, 4]
        assert list(batcher) == [5, 6]
        assert not batcher.due(0)
        assert batcher.deadline == 1

    def test_the_rest_waits_from_the_time_of_the_take(self) -> None:
        batcher: Batcher[int] = Batcher(2, 10)
        batcher.add(1, 0)
        batcher.extend([2, 3], 4)
        batcher.take(6)
        assert batcher.deadline == 16

    def test_more_than_two_batches(self) -> None:
        batcher: Batcher[int] = Batcher(2, 10)
        batcher.extend(range(5), 0)
        taken = []
        while batcher.due(0):
            taken.append(batcher.take())
        assert taken == [[0, 1], [2, 3]]
        assert len(batcher) == 1

    def test_timeout_zero_is_due_with_the_first(self) -> None:
        batcher: Batcher[int] = Batcher(10, 0)
        batcher.add(1, 3)
        assert batcher.due(3)

    def test_clear_gives_everything_back(self) -> None:
        batcher: Batcher[int] = Batcher(2, 10)
        batcher.extend([1, 2, 3], 0)
        assert batcher.clear() == [1, 2, 3]
        assert len(batcher) == 0
        assert batcher.deadline is None
        batcher.add(4, 50)
        assert batcher.deadline == 60

    @pytest.mark.parametrize(("size", "timeout"), [(0, 1), (-1, 1), (1, -1)])
    def test_nonsense_is_refused(self, size: int, timeout: float) -> None:
        with pytest.raises(ValueError, match="batch"):
            Batcher(size, timeout)

    @given(
        st.integers(1, 10),
        st.integers(0, 20),
        st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12)), max_size=30),
    )
    def test_taken_as_soon_as_due_no_item_waits_longer_than_twice_the_timeout(
        self, size: int, timeout: int, arrivals: list[tuple[int, int]]
    ) -> None:
        """Once for a rest that a full batch has left behind, never more: what is left is never a full batch."""
        batcher: Batcher[tuple[int, int]] = Batcher(size, timeout)
        now, number, taken = 0, 0, []

        def flush() -> None:
            while batcher.due(now):
                batch = batcher.take()
                assert 1 <= len(batch) <= size
                assert all(now - arrived <= 2 * timeout for arrived, _ in batch)
                taken.extend(number for _, number in batch)

        for pause, count in arrivals:
            for _ in range(pause):
                now += 1
                flush()
            batcher.extend([(now, number + n) for n in range(count)], now)
            number += count
            flush()
            assert len(batcher) < size
        for _ in range(2 * timeout + 1):
            flush()
            now += 1
        assert taken == list(range(number))  # all of them, oldest first


class AgainstAList(RuleBasedStateMachine):
    """The Batcher beside a plain list and the moment since which its first batch has waited."""

    def __init__(self) -> None:
        super().__init__()
        self.batcher: Batcher[int] = Batcher(3, 7)
        self.items: list[int] = []
        self.since = 0
        self.now = 0
        self.next = 0

    @rule(seconds=st.integers(0, 9))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 5))
    def arrive(self, count: int) -> None:
        if not self.items:
            self.since = self.now
        new = list(range(self.next, self.next + count))
        self.next += count
        self.items += new
        self.batcher.extend(new, self.now)

    @rule()
    def take(self) -> None:
        assert self.batcher.take(self.now) == self.items[:3]
        self.items = self.items[3:]
        self.since = self.now

    @rule()
    def clear(self) -> None:
        assert self.batcher.clear() == self.items
        self.items = []

    @invariant()
    def agrees(self) -> None:
        assert list(self.batcher) == self.items
        due = len(self.items) >= 3 or (bool(self.items) and self.now - self.since >= 7)
        assert self.batcher.due(self.now) == due


TestAgainstAList = AgainstAList.TestCase
