"""How a handler is called: its three signatures, ``def`` and ``async def``, and ``ctx.wait_until``.

The worker's pool child and ``cfqueue.testing`` call handlers through ``invoke`` and nothing else, so
that a handler that passes its test behaves the same in production.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from cfqueue.errors import HandlerSignatureError

from .message import MessageBatch

Handler = Callable[..., Any]

#: ``(batch)``, ``(batch, env)`` and ``(batch, env, ctx)``: all three are seen in Python Workers.
_MOST_ARGUMENTS = 3

_local = threading.local()


class Context:
    """The third argument of a handler: work that goes on after it has returned.

    ``wait_until`` takes an awaitable or a ``concurrent.futures.Future``. The batch is settled when all of
    them have ended; one that fails makes the whole invocation fail, as on Cloudflare (unless the message
    was acked explicitly).
    """

    def __init__(self) -> None:
        self._waiting: list[Any] = []

    def wait_until(self, work: Awaitable[Any] | concurrent.futures.Future[Any]) -> None:
        """Keep the batch open until ``work`` has ended. Raises TypeError for anything else."""
        if not inspect.isawaitable(work) and not isinstance(work, concurrent.futures.Future):
            raise TypeError(
                "ctx.wait_until() takes an awaitable or a concurrent.futures.Future, "
                f"but received {type(work).__name__}. Call the async function first: wait_until(work())."
            )
        self._waiting.append(work)

    waitUntil = wait_until  # noqa: N815 - Cloudflare's spelling

    def pass_through_on_exception(self) -> None:
        """Nothing to do: there is no origin to pass through to. Kept for Cloudflare's code."""

    passThroughOnException = pass_through_on_exception  # noqa: N815 - Cloudflare's spelling

    def _take(self) -> list[Any]:
        waiting, self._waiting = self._waiting, []
        return waiting


def count_arguments(handler: Handler, name: str) -> int:
    """How many of batch, env and ctx the handler takes.

    Raises HandlerSignatureError when it cannot be called with one, two or three positional arguments.
    """
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError) as exc:
        raise HandlerSignatureError(f"The handler of queue {name!r} is not callable: {handler!r}.") from exc
    if _yields(handler):
        raise HandlerSignatureError(
            f"The handler of queue {name!r} is a generator (it contains `yield`): calling it would run none of "
            "it, and every message would count as done. Write an ordinary or an async function."
        )
    for count in range(_MOST_ARGUMENTS, 0, -1):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        return count
    raise HandlerSignatureError(
        f"The handler of queue {name!r} has the signature {signature}, but is called with positional "
        "arguments only. Write it as (batch), (batch, env) or (batch, env, ctx)."
    )


def invoke(handler: Handler, arguments: int, batch: MessageBatch, env: Any, ctx: Any) -> Any:
    """Call the handler, wait for it and for its ``wait_until`` work; return what it returned.

    Whatever the handler raises is raised here, and so is the first failure of ``wait_until`` work.
    """
    context = ctx if ctx is not None else Context()
    given = (batch, env, context)[:arguments]
    try:
        result = handler(*given)
    except Exception:
        # What was handed to wait_until before still runs, and its calls on the batch count (as in workerd);
        # the handler's own failure is the one that is told.
        if isinstance(context, Context) and context._waiting:
            with suppress(Exception, asyncio.CancelledError):
                _run(_wait(context))
        raise
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError(
            "The handler returned a generator, so nothing of it has run. Return nothing, or an awaitable."
        )
    if inspect.isawaitable(result):
        return _run(_finish(result, context))
    if isinstance(context, Context) and context._waiting:
        _run(_wait(context))
    return result


def _yields(handler: Handler) -> bool:
    function = inspect.unwrap(handler)
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = getattr(function, "__call__", function)  # noqa: B004 - an object with __call__
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


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
    while work := context._take():
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
