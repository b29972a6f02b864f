"""Coroutine handlers: one loop for a thread, and none of them outlives its own call."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from cfqueue import CFQueue
from cfqueue.errors import HandlerSignatureError
from cfqueue.messages import MessageBatch
from cfqueue.messages.invocation import invoke

from .stage import PATIENCE


def call(handler: Any) -> Any:
    return invoke(handler, 1, MessageBatch("jobs", []), None, None)


@pytest.fixture
def interrupt() -> Iterator[Callable[[], None]]:
    """``interrupt()``: as soon as this thread's event loop waits, a signal handler raises there."""

    def raising(*_: Any) -> None:
        raise SoftTimeLimitExceeded

    main = threading.main_thread().ident
    assert main is not None
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def when_it_waits() -> None:
        for _ in range(round(PATIENCE * 1000)):
            frame = sys._current_frames()[main]
            if frame.f_code.co_name == "select" and "selectors" in frame.f_code.co_filename:
                signal.pthread_kill(main, signal.SIGUSR2)
                return
            if stop.wait(0.001):
                return

    def interrupt() -> None:
        threads.append(threading.Thread(target=when_it_waits))
        threads[-1].start()

    before = signal.signal(signal.SIGUSR2, raising)
    yield interrupt
    stop.set()
    for thread in threads:
        thread.join()
    signal.signal(signal.SIGUSR2, before)


def test_an_exception_from_outside_ends_the_coroutine_for_good(interrupt: Callable[[], None]) -> None:
    """A soft time limit is raised into the running loop, not into the coroutine."""
    log: list[str] = []
    gate: list[asyncio.Event] = []

    async def slow(batch: Any) -> None:
        gate.append(asyncio.Event())
        log.append("began")
        interrupt()
        try:
            await gate[0].wait()
            log.append("went on")
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    async def next_one(batch: Any) -> None:
        gate[0].set()
        for _ in range(5):
            await asyncio.sleep(0)
        log.append("the next one ran")

    with pytest.raises(SoftTimeLimitExceeded):
        call(slow)
    call(next_one)
    assert log == ["began", "cancelled", "the next one ran"]


def test_an_exception_of_the_coroutines_own_keeps_the_loop() -> None:
    loops: list[Any] = []

    async def failing(batch: Any) -> None:
        loops.append(asyncio.get_running_loop())
        raise ValueError("as asked")

    for _ in range(3):
        with pytest.raises(ValueError, match="as asked"):
            call(failing)
    assert loops[0] is loops[1] is loops[2], "clients made in one batch can be used in the next"


def test_inside_a_running_loop_a_handler_runs_on_another_thread() -> None:
    async def handler(batch: Any) -> int:
        await asyncio.sleep(0)
        return threading.get_ident()

    async def test() -> Any:
        return call(handler)

    assert asyncio.run(test()) != threading.get_ident()


def test_each_thread_has_a_loop_of_its_own() -> None:
    async def handler(batch: Any) -> Any:
        return asyncio.get_running_loop()

    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call(handler)))
    thread.start()
    thread.join()
    assert found[0] is not call(handler)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_a_loop_of_its_own() -> None:
    async def handler(batch: Any) -> Any:
        await asyncio.sleep(0)
        return id(asyncio.get_running_loop())

    mine = call(handler)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, b"other" if call(handler) != mine else b"same")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 10) == b"other"
    assert call(handler) == mine
    os.close(reading)
    os.close(writing)


# Generators run nothing when they are called


def generator(batch: Any) -> Any:
    yield 1


async def async_generator(batch: Any) -> Any:
    yield 1


class Callable_:  # noqa: N801
    def __call__(self, batch: Any) -> Any:
        yield 1


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(batch: Any) -> Any:
        return function(batch)

    return wrapper


@pytest.mark.parametrize(
    "handler",
    [generator, async_generator, Callable_(), functools.partial(generator), wrapped(generator)],
    ids=["generator", "async generator", "object", "partial", "wrapped"],
)
def test_a_generator_is_refused_at_decoration(cf: CFQueue, handler: Any) -> None:
    with pytest.raises(HandlerSignatureError, match="generator"):
        cf.queue("jobs")(handler)
    assert "jobs" not in cf.consumers


def test_a_coroutine_function_is_not_a_generator(cf: CFQueue) -> None:
    async def handler(batch: Any) -> None: ...

    assert cf.queue("jobs")(handler).name == "jobs"


def test_a_generator_that_is_returned_is_an_error() -> None:
    with pytest.raises(TypeError, match="nothing of it has run"):
        call(generator)
    with pytest.raises(TypeError, match="nothing of it has run"):
        call(async_generator)
