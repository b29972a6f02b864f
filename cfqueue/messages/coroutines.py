"""Coroutines of handlers: one event loop per thread, kept between batches so that clients can be reused.

Loaded by ``invocation`` when the first coroutine is to be run.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import weakref
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from .context import Context

_local = threading.local()


def finish(result: Awaitable[Any], context: Any) -> Any:
    """Run what the handler returned to its end, then what it left to ``wait_until``; return its value."""
    return _run(_finish(result, context))


def wait(context: Context) -> None:
    """Wait for what was left to ``wait_until``; raise the first failure."""
    _run(_wait(context))


def wait_quietly(context: Context) -> None:
    """Wait for what was left to ``wait_until``; the handler has failed, and that is what is told."""
    with suppress(Exception, asyncio.CancelledError):
        _run(_wait(context))


async def _finish(result: Awaitable[Any], context: Any) -> Any:
    try:
        value = await result
    except Exception:
        if isinstance(context, Context):
            with suppress(Exception, asyncio.CancelledError):
                await _wait(context)
        raise
    if isinstance(context, Context):
        await _wait(context)
    return value


async def _wait(context: Context) -> None:
    failure: BaseException | None = None
    while work := context.take():
        pending = [asyncio.wrap_future(w) if isinstance(w, concurrent.futures.Future) else w for w in work]
        for outcome in await asyncio.gather(*pending, return_exceptions=True):
            if isinstance(outcome, BaseException) and failure is None:
                failure = outcome
    if failure is not None:
        raise failure


def _run(coroutine: Any) -> Any:
    """Run on this thread's event loop, which is kept between batches so that clients can be reused."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run_on_own_loop(coroutine)
    # Called from inside a running loop (a test): a loop cannot be re-entered, so use another thread.
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def _run_on_own_loop(coroutine: Any) -> Any:
    """Run to the end, or, interrupted from outside (a soft time limit is raised into the running loop), end
    the coroutine with it: left on a loop that is kept it would go on inside later batches.
    """
    kept = _kept()
    ended = False

    async def to_the_end() -> Any:
        nonlocal ended
        try:
            return await coroutine
        finally:
            ended = True

    try:
        return kept.runner.run(to_the_end())
    except BaseException:
        if not ended:
            _local.kept = None
            kept.runner.close()  # cancels what still runs, and waits for it
        raise


def _kept() -> _Kept:
    """This thread's event loop; it is closed when the thread ends."""
    kept: _Kept | None = getattr(_local, "kept", None)
    if kept is None or kept.pid != os.getpid():
        kept = _local.kept = _Kept()
    return kept


class _Kept:
    """A runner and the process that made it: a forked child shares its descriptors and must not touch them."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.pid = os.getpid()
        weakref.finalize(self, _close, self.runner, self.pid)


def _close(runner: asyncio.Runner, pid: int) -> None:
    if pid == os.getpid():
        runner.close()
    else:
        _inherited.append(runner)  # closing it, or letting it go, would take the parent's loop apart


_inherited: list[asyncio.Runner] = []
