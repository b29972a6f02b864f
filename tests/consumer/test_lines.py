"""One queue in one worker: what it asks the broker for next, when a held batch is due, when it is to wait."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cfqueue.brokers.base import Take
from cfqueue.consumer.lines import Line
from cfqueue.messages import ALONE, FRESH, SUSPECT, ConsumerSettings

from .stage import delivery


def line(**settings: Any) -> Line:
    return Line(ConsumerSettings("jobs", **{"max_batch_size": 10, "max_batch_timeout": 5, **settings}))


def asked(line: Line, now: float = 0.0, *, lane_free: bool = True) -> Take:
    take = line.take(now, lane_free=lane_free)
    assert take is not None
    return take


def hold(line: Line, count: int, now: float = 0.0) -> None:
    line.hold([delivery() for _ in range(count)], now)


# Taking


def test_a_new_line_is_hungry_and_asks_for_a_full_batch() -> None:
    take = asked(line(max_concurrency=3))
    assert (take.suspicion, take.limit, take.fill, take.max_concurrency) == (FRESH, 10, True, 3)
    assert take.batch_id is not None


def test_without_a_timeout_a_part_of_a_batch_may_begin() -> None:
    assert asked(line(max_batch_timeout=0)).fill is False


def test_what_is_missing_from_a_held_batch_is_only_held() -> None:
    waiting = line()
    hold(waiting, 4)
    take = asked(waiting)
    assert (take.limit, take.batch_id) == (6, None)


@pytest.mark.parametrize(("count", "hungry"), [(10, True), (9, False), (0, False)])
def test_fewer_than_asked_for_means_that_there_are_no_more(count: int, hungry: bool) -> None:
    fed = line()
    fed.took(asked(fed), count)
    assert fed.hungry is hungry
    assert (fed.take(1.0, lane_free=True) is not None) is hungry


@pytest.mark.parametrize(("size", "eighth"), [(100, 13), (10, 2), (8, 1), (1, 1)])
def test_suspects_are_taken_by_the_eighth_and_begin_at_once(size: int, eighth: int) -> None:
    suspected = line(max_batch_size=size)
    suspected.hungry = False
    suspected.waiting = {SUSPECT: 0}
    take = asked(suspected)
    assert (take.suspicion, take.limit, take.fill) == (SUSPECT, eighth, False)


def test_one_that_is_to_run_alone_is_taken_alone_and_only_when_the_lane_is_free() -> None:
    suspected = line()
    suspected.hungry = False
    suspected.waiting = {ALONE: 0}
    assert suspected.take(0.0, lane_free=False) is None
    assert not suspected.wants(0.0, lane_free=False)
    assert (asked(suspected).suspicion, asked(suspected).limit) == (ALONE, 1)


def test_suspects_get_every_eighth_batch_while_fresh_ones_wait() -> None:
    busy = line(max_batch_timeout=0)
    served = []
    for _ in range(16):
        busy.waiting = {FRESH: 0, SUSPECT: 0}
        busy.hungry = True
        served.append(asked(busy).suspicion)
    assert served == ([FRESH] * 7 + [SUSPECT]) * 2


def test_a_suspect_of_higher_priority_goes_before_fresh_messages() -> None:
    busy = line()
    busy.waiting = {FRESH: 2, SUSPECT: 7}
    assert asked(busy).suspicion == SUSPECT
    busy.waiting = {FRESH: 7, SUSPECT: 2}
    assert [asked(busy).suspicion for _ in range(20)] == [FRESH] * 20


def test_suspects_that_are_gone_are_asked_for_no_more() -> None:
    suspected = line()
    suspected.hungry = False
    suspected.waiting = {SUSPECT: 0}
    suspected.took(asked(suspected), 0)
    assert suspected.take(0.0, lane_free=True) is None


# A batch is due


def test_a_held_batch_is_due_when_it_is_full() -> None:
    full = line()
    hold(full, 9, now=1.0)
    assert not full.ready(1.0)
    hold(full, 1, now=2.0)
    assert full.ready(2.0)
    assert len(full.begin().deliveries) == 10
    assert len(full.batcher) == 0


def test_a_held_batch_is_due_when_its_time_is_over() -> None:
    partial = line()
    hold(partial, 2, now=1.0)
    hold(partial, 1, now=5.0)
    assert not partial.ready(5.9)
    assert partial.wake_at() == 6.0
    assert partial.ready(6.0)
    assert len(partial.begin().deliveries) == 3


def test_an_empty_line_has_nothing_to_wake_for() -> None:
    empty = line()
    empty.hungry = False
    assert empty.wake_at() is None
    assert not empty.ready(math.inf)


# At max_concurrency


def test_a_busy_line_waits_a_moment_and_tries_again() -> None:
    busy = line(max_concurrency=1)
    busy.took(asked(busy), 0)
    busy.busy(10.0)
    assert busy.take(10.0, lane_free=True) is None
    assert not busy.wants(10.0, lane_free=True)
    again = busy.wake_at()
    assert again is not None
    assert 10.0 < again <= 10.5
    assert busy.wants(again, lane_free=True)
    assert busy.take(again, lane_free=True) is not None


def test_a_line_that_found_nothing_does_not_wait() -> None:
    idle = line(max_concurrency=1)
    idle.took(asked(idle), 0)
    assert idle.not_before == 0.0
    idle.hungry = True  # news
    assert idle.take(0.0, lane_free=True) is not None


# After a crash


@pytest.mark.parametrize(("retry_delay", "crash_delay"), [(0, 1.0), (30, 30.0)])
def test_what_died_alone_waits_for_its_retry_delay_but_at_least_a_second(
    retry_delay: int, crash_delay: float
) -> None:
    assert asked(line(retry_delay=retry_delay)).crash_delay == crash_delay
