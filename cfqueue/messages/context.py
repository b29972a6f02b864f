"""``ctx``, the third argument of a handler."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import concurrent.futures


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
        if not inspect.isawaitable(work) and not _is_future(work):
            raise TypeError(
                "ctx.wait_until() takes an awaitable or a concurrent.futures.Future, "
                f"but received {type(work).__name__}. Call the async function first: wait_until(work())."
            )
        self._waiting.append(work)

    waitUntil = wait_until  # noqa: N815 - Cloudflare's spelling

    def pass_through_on_exception(self) -> None:
        """Nothing to do: there is no origin to pass through to. Kept for Cloudflare's code."""

    passThroughOnException = pass_through_on_exception  # noqa: N815 - Cloudflare's spelling

    @property
    def waiting(self) -> bool:
        """Whether work was handed over that has not been waited for."""
        return bool(self._waiting)

    def take(self) -> list[Any]:
        """The work that was handed over since the last time; whoever takes it waits for it."""
        waiting, self._waiting = self._waiting, []
        return waiting


def _is_future(work: object) -> bool:
    import concurrent.futures

    return isinstance(work, concurrent.futures.Future)
