"""What a message's sender sees in Celery's result backend: an ack is SUCCESS, a dead letter FAILURE.

Only messages sent by ``delay`` or ``apply_async`` without ``ignore_result`` have a result; ``send`` asks
for none. A backend is a network service, so it is written to by a thread of its own: a slow one delays no
batch. The result is written when the outcome was decided; it says nothing about the broker.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from celery.backends.base import DisabledBackend

from cfqueue.messages import Delivery
from cfqueue.messages.outcome import Ack, DeadLetter, Drop, Outcome

from .task import MessageFailed

logger = logging.getLogger("cfqueue.consumer")

#: Seconds that a stopping worker waits for the last results to be written.
_LAST_RESULTS = 10.0


class ResultWriter:
    """Writes results, one after the other, on a thread that is started with the first of them."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._thread: threading.Thread | None = None
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def write(self, task: Any, delivery: Delivery, outcome: Outcome) -> None:
        """Store the final outcome of a message; a retry is not final and stores nothing."""
        match outcome:
            case Ack():
                self._submit(task, lambda backend: backend.mark_as_done(delivery.id, None, state="SUCCESS"))
            case DeadLetter(reason=reason, error=error) | Drop(reason=reason, error=error):
                why = f": {error.type}: {error.message}" if error is not None else ""
                failure = MessageFailed(f"dead-lettered, {reason}{why}")
                self._submit(task, lambda backend: backend.mark_as_failure(delivery.id, failure))

    def revoked(self, task: Any, delivery: Delivery) -> None:
        """Store that the message was revoked."""
        self._submit(task, lambda backend: backend.mark_as_revoked(delivery.id, "revoked", store_result=True))

    def close(self) -> None:
        """Write what is left and end the thread; a backend that does not answer delays no exit for long."""
        if self._thread is None:
            return
        self._waiting.put(None)
        self._thread.join(_LAST_RESULTS)
        if self._thread.is_alive():
            logger.error(
                "cfqueue: the result backend took more than %d s for the last results; they are not written. "
                "The outcomes of the messages stand.",
                _LAST_RESULTS,
            )

    def _submit(self, task: Any, write: Callable[[Any], Any]) -> None:
        backend = task.backend
        if isinstance(backend, DisabledBackend):
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="cfqueue-results", daemon=True)
            self._thread.start()
        self._waiting.put(lambda: _guarded(write, backend))

    def _run(self) -> None:
        while (write := self._waiting.get()) is not None:
            write()


def _guarded(write: Any, backend: Any) -> None:
    try:
        write(backend)
    except Exception:
        # The outcome stands whether or not the result backend could be told.
        logger.exception("cfqueue: a result could not be written to the result backend")
