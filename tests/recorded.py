"""The recorded behaviour of Cloudflare's runtime (``fixtures/``), and how its operations are run here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cfqueue.messages import MessageBatch
from cfqueue.testing import Context

FIXTURES = Path(__file__).parent / "fixtures"

Row = dict[str, Any]


class BoomError(Exception):
    pass


def rows(name: str) -> list[Row]:
    with (FIXTURES / f"{name}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def run_operations(ops: Sequence[list[Any]], batch: MessageBatch, ctx: Context) -> None:
    """Carry out the operations of one recorded handler; Cloudflare's own spelling where there is one."""
    calls: dict[str, Callable[..., Any]] = {
        "ack": lambda i: batch.messages[i].ack(),
        "retry": lambda i, options=None: batch.messages[i].retry(options),
        "ackAll": batch.ackAll,
        "retryAll": batch.retryAll,
        "throw": _throw,
        "waitUntilReject": lambda: ctx.waitUntil(_reject()),
        "waitUntilAck": lambda i: ctx.waitUntil(_later(batch.messages[i].ack)),
        "waitUntilRetry": lambda i, options=None: ctx.waitUntil(_later(batch.messages[i].retry, options)),
    }
    for name, *arguments in ops:
        calls[name](*arguments)


def _throw() -> None:
    raise BoomError("boom")


async def _reject() -> None:
    raise BoomError("rejected")


async def _later(call: Callable[..., None], *arguments: Any) -> None:
    await asyncio.sleep(0)  # by then the handler has returned
    call(*arguments)


def short(result: dict[str, Any]) -> dict[str, Any]:
    """A result as it was recorded: what is false or empty is left out."""
    found = dict(result)
    for name in ("ackAll", "explicitAcks", "retryMessages"):
        if not found[name]:
            del found[name]
    if not found["retryBatch"]["retry"]:
        assert found["retryBatch"] == {"retry": False}
        del found["retryBatch"]
    return found
