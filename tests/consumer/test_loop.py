"""The I/O loop: wake-ups are never lost, events run on its thread, errors do not end it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cfqueue.consumer import loop as module
from cfqueue.consumer.loop import IOLoop

from .stage import PATIENCE


class Work:
    """Counts its turns; does what it is told in the next one."""

    def __init__(self) -> None:
        self.turns = 0
        self.turned = threading.Condition()
        self.each_turn: Callable[[], None] = lambda: None
        self.news: list[int] = []
        self.watched: list[int] = []
        self.closed = False

    def descriptors(self) -> list[int]:
        return self.watched

    def readable(self, descriptor: int) -> None:
        os.read(descriptor, 1)
        self.news.append(descriptor)

    def turn(self) -> float | None:
        with self.turned:
            self.turns += 1
            self.turned.notify_all()
        self.each_turn()
        return None

    def close(self) -> None:
        self.closed = True

    def wait_for(self, condition: Callable[[], Any]) -> None:
        with self.turned:
            assert self.turned.wait_for(condition, PATIENCE), "the loop did not take a turn"


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    # A loop that has lost a wake-up sleeps on: here for ever, so that a test sees it.
    monkeypatch.setattr(module, "_LONGEST_SLEEP", 3600.0)
    return Work()


@pytest.fixture
def loop(work: Work) -> Iterator[IOLoop]:
    loop = IOLoop(work)
    loop.start()
    yield loop
    os.write(loop._wake_w, b"x") if not work.closed else None
    assert loop.stop(PATIENCE)


def test_every_wake_up_is_followed_by_a_turn(loop: IOLoop, work: Work) -> None:
    for _ in range(5_000):
        seen = work.turns
        loop.wake()
        work.wait_for(lambda seen=seen: work.turns > seen)


def test_events_from_many_threads_all_run_and_soon(loop: IOLoop) -> None:
    """Each thread waits for its own event before it sends the next: one lost wake-up would stop it."""
    late: list[int] = []

    def send(number: int) -> None:
        for _ in range(1_000):
            ran = threading.Event()
            loop.call(ran.set)
            if not ran.wait(PATIENCE):
                late.append(number)
                return

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert late == []


def test_a_wake_up_at_the_very_moment_in_which_the_loop_wakes_is_not_lost(
    loop: IOLoop, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while the loop reads its pipe; the ones after it must be heard."""
    read = os.read

    def read_with_company(descriptor: int, size: int) -> bytes:
        if descriptor == loop._wake_r:
            loop.wake()
        return read(descriptor, size)

    monkeypatch.setattr(module.os, "read", read_with_company)
    for _ in range(20):
        ran = threading.Event()
        loop.call(ran.set)
        assert ran.wait(PATIENCE)


def test_events_run_in_order_on_the_loops_own_thread(loop: IOLoop) -> None:
    ran: list[tuple[int, int]] = []
    done = threading.Event()
    for number in range(50):
        loop.call(lambda number=number: ran.append((number, threading.get_ident())))
    loop.call(done.set)
    assert done.wait(PATIENCE)
    assert [number for number, _ in ran] == list(range(50))
    assert {ident for _, ident in ran} == {loop._thread.ident}


def test_an_error_is_logged_and_the_loop_goes_on(
    loop: IOLoop, work: Work, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSE_AFTER_ERROR", 0.0)
    broken = threading.Event()

    def fail() -> None:
        broken.set()
        raise ValueError("a defect of ours")

    loop.call(fail)
    assert broken.wait(PATIENCE)
    ran = threading.Event()
    loop.call(ran.set)
    assert ran.wait(PATIENCE)
    assert "unexpected error in the consumer loop" in caplog.text


def test_news_at_a_descriptor_are_followed_by_a_turn(loop: IOLoop, work: Work) -> None:
    reading, writing = os.pipe()
    try:
        work.watched.append(reading)
        seen = work.turns
        loop.wake()
        work.wait_for(lambda: work.turns > seen)
        seen = work.turns
        os.write(writing, b"n")
        work.wait_for(lambda: work.turns > seen and work.news)
        assert set(work.news) == {reading}
    finally:
        work.watched.clear()
        loop.stop(PATIENCE)
        os.close(reading)
        os.close(writing)


def test_stopping_ends_the_thread_and_closes_the_work(loop: IOLoop, work: Work) -> None:
    assert loop.stop(PATIENCE)
    assert work.closed
    loop.wake()  # after the end: without effect
    loop.call(lambda: None)


def test_a_loop_that_was_never_started_can_be_stopped() -> None:
    idle = IOLoop(Work())
    assert not idle.started
    assert idle.stop(0.1)
    os.close(idle._wake_r)
    os.close(idle._wake_w)
