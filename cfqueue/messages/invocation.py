"""How a handler is called: its three signatures, ``def`` and ``async def``, and ``ctx.wait_until``.

The worker's pool child and ``cfqueue.testing`` call handlers through ``invoke`` and nothing else, so
that a handler that passes its test behaves the same in production.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from cfqueue.errors import HandlerSignatureError

from .context import Context
from .message import MessageBatch

Handler = Callable[..., Any]

#: ``(batch)``, ``(batch, env)`` and ``(batch, env, ctx)``: all three are seen in Python Workers.
_MOST_ARGUMENTS = 3
_NAMES = ("batch", "env", "ctx")


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
            bound = signature.bind(*range(count))
        except TypeError:
            continue
        if not _lends_itself(signature, bound, count):
            continue
        return count
    raise HandlerSignatureError(
        f"The handler of queue {name!r} has the signature {signature}, but is called with positional "
        "arguments only. Write it as (batch), (batch, env) or (batch, env, ctx)."
    )


def _lends_itself(signature: inspect.Signature, bound: inspect.BoundArguments, count: int) -> bool:
    """Whether the last argument is meant to be one of ours: a parameter with a default is the handler's own
    business (``def handle(batch, limit=10)``) unless it has our name.
    """
    parameters = list(signature.parameters.values())
    if count == 1 or count > len(parameters) or len(bound.arguments) < count:
        return True
    parameter = parameters[count - 1]
    return parameter.default is inspect.Parameter.empty or parameter.name.strip("_") == _NAMES[count - 1]


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
        if isinstance(context, Context) and context.waiting:
            _coroutines().wait_quietly(context)
        raise
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError(
            "The handler returned a generator, so nothing of it has run. Return nothing, or an awaitable."
        )
    if inspect.isawaitable(result):
        return _coroutines().finish(result, context)
    if isinstance(context, Context) and context.waiting:
        _coroutines().wait(context)
    return result


def _coroutines() -> Any:
    """Loaded with the first coroutine: asyncio is a fifth of the import of cfqueue (measured)."""
    from cfqueue.messages import coroutines

    return coroutines


def _yields(handler: Handler) -> bool:
    function = inspect.unwrap(handler)
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = getattr(function, "__call__", function)  # noqa: B004 - an object with __call__
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
