"""Inside the pool: **here a batch is run**. Decode, call the handler, settle, return outcomes.

Law of this file: it publishes nothing and raises nothing. Whatever happens comes back as a ``Report``;
what kills the process is the parent's to judge.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from celery import signals
from celery._state import _task_stack
from celery.exceptions import Ignore, Reject, WorkerShutdown, WorkerTerminate
from celery.exceptions import Retry as CeleryRetry

from cfqueue import clock
from cfqueue.errors import MessageRejected
from cfqueue.limits import Limits
from cfqueue.messages import Delivery, Message, MessageBatch, known_version, read_message, settle
from cfqueue.messages.context import Context
from cfqueue.messages.invocation import invoke
from cfqueue.messages.message import BacklogMetrics
from cfqueue.messages.outcome import ACK, REJECTED, Ack, ErrorInfo, Outcome
from cfqueue.messages.settle import CallRecord, ConsumerSettings, buried

from .batch import Report

logger = logging.getLogger("cfqueue.consumer")

#: What billiard's signal handler exits with when the parent terminates the child (SIGTERM): the end of the
#: process, not an answer of the handler.
_TERMINATED = -(256 - signal.SIGTERM)

#: What travels to the child for one message: fields of a Delivery, as a tuple (a third of the pickling cost).
Wire = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Runner:
    """Everything that is needed to run the batches of one queue; looked up by key inside the child."""

    settings: ConsumerSettings
    handler: Callable[..., Any]
    arguments: int
    env: Callable[[], Any]
    task: Any
    metrics: Callable[[str], BacklogMetrics]
    limits: Limits


#: (key of the application, queue) -> how to run it. Filled before the pool forks, inherited by children.
runners: dict[tuple[str, str], Runner] = {}


def wire(delivery: Delivery) -> Wire:
    """The delivery as it travels to the child; its tag stays with the parent."""
    d = delivery
    return (
        d.id,
        d.headers,
        d.body,
        d.body_content_type,
        d.body_encoding,
        d.attempts,
        d.suspicion,
        d.priority,
        d.timestamp_ms,
        d.expires_ms,
        d.first_failed_ms,
    )


def unwire(queue: str, fields: Wire) -> Delivery:
    """The delivery as the child sees it."""
    return Delivery(queue, *fields)


def run_batch(
    key: str, queue: str, batch_id: str, parent: int, messages: Sequence[Wire | Delivery]
) -> Report:
    """Run one batch and report its outcomes.

    ``parent`` is the pid of the worker that holds the leases; in that process itself (threads, solo) the
    messages come as they are.
    """
    if parent not in (os.getpid(), os.getppid()):
        # An orphan: its worker was killed and another one may be running these messages already.
        return Report(None, refused="the worker that held these messages has died")
    runner = runners.get((key, queue))
    if runner is None:
        return Report(None, refused=f"this pool process knows no handler for queue {queue!r}")
    return _Run(runner, batch_id, queue, messages).report()


class _Run:
    """One batch, from bytes to outcomes."""

    def __init__(
        self, runner: Runner, batch_id: str, queue: str, messages: Sequence[Wire | Delivery]
    ) -> None:
        self.runner = runner
        self.batch_id = batch_id
        self.queue = queue
        self.readable: list[Message] = []
        self.settled: dict[int, Outcome] = {}
        self.left_alone: list[int] = []
        self.rejected = False
        self.size = len(messages)
        for position, fields in enumerate(messages):
            self._read(position, fields if isinstance(fields, Delivery) else unwire(queue, fields))

    def _read(self, position: int, delivery: Delivery) -> None:
        try:
            if not known_version(delivery.headers):
                self.left_alone.append(position)
                self.settled[position] = ACK  # never carried out: the parent gives it back
                return
            self.readable.append(read_message(delivery))
        except MessageRejected as error:
            self.settled[position] = buried(
                error.reason, self.runner.settings, ErrorInfo.of(error, with_traceback=False)
            )

    def report(self) -> Report:
        """Run what can be read and put the outcomes in the order of the messages."""
        started = time.perf_counter()
        record = self._run() if self.readable else CallRecord()
        runtime = time.perf_counter() - started
        outcomes = self._outcomes(record)
        everything_acked = not self.settled and all(type(outcome) is Ack for outcome in outcomes)
        return Report(
            None if everything_acked else outcomes,
            runtime=runtime,
            error=record.error,
            left_alone=tuple(self.left_alone),
        )

    def _outcomes(self, record: CallRecord) -> list[Outcome]:
        pairs = [(message.id, message.attempts) for message in self.readable]
        decided = iter(settle(record, pairs, self.runner.settings))
        if self.rejected:
            decided = iter(self._bury(record, list(decided)))
        return [self.settled[i] if i in self.settled else next(decided) for i in range(self.size)]

    def _bury(self, record: CallRecord, decided: list[Outcome]) -> list[Outcome]:
        """``raise Reject(requeue=False)``: dead-letter at once whatever the handler did not settle itself."""
        settings = self.runner.settings
        own = set(record.explicit_acks) | set(record.retries)
        if record.ack_all:
            return decided
        return [
            outcome if message.id in own else buried(REJECTED, settings, record.error)
            for message, outcome in zip(self.readable, decided, strict=True)
        ]

    def _run(self) -> CallRecord:
        runner, task = self.runner, self.runner.task
        batch = MessageBatch(
            self.queue, self.readable, metrics=lambda: runner.metrics(self.queue), limits=runner.limits
        )
        task.push_request(
            id=self.batch_id,
            args=(batch,),
            kwargs={},
            called_directly=False,
            is_eager=False,
            delivery_info={"routing_key": self.queue, "exchange": ""},
        )
        _task_stack.push(task)
        try:
            return self._call(batch)
        finally:
            _task_stack.pop()
            task.pop_request()

    def _call(self, batch: MessageBatch) -> CallRecord:
        """Run the handler inside Celery's signals; every exception is an answer, none escapes."""
        task = self.runner.task
        state, value = "SUCCESS", None
        error: BaseException | None = None
        _send(signals.task_prerun, sender=task, task_id=self.batch_id, task=task, args=(batch,), kwargs={})
        try:
            value = invoke(self.runner.handler, self.runner.arguments, batch, self.runner.env(), Context())
        except (WorkerShutdown, WorkerTerminate):
            raise  # the solo pool runs in the worker's main thread: these are the worker's own
        except BaseException as raised:
            # MemoryError and SystemExit are answers like any other exception; being terminated is not.
            if isinstance(raised, SystemExit) and raised.code == _TERMINATED:
                raise
            error = raised
        record, state = self._conclude(batch, error)
        if state == "SUCCESS":
            _send(signals.task_success, sender=task, result=value)
        elif state == "FAILURE":
            _send(
                signals.task_failure,
                sender=task,
                task_id=self.batch_id,
                exception=error,
                args=(batch,),
                kwargs={},
                traceback=getattr(error, "__traceback__", None),
                einfo=None,
            )
        _send(
            signals.task_postrun,
            sender=task,
            task_id=self.batch_id,
            task=task,
            args=(batch,),
            kwargs={},
            retval=value,
            state=state,
        )
        return record

    def _conclude(self, batch: MessageBatch, error: BaseException | None) -> tuple[CallRecord, str]:
        """What Celery's own control exceptions mean for a batch; any other exception is Cloudflare's rule."""
        if error is None:
            return batch.finish(), "SUCCESS"
        if isinstance(error, Ignore):
            return batch.finish(), "IGNORED"
        if isinstance(error, CeleryRetry):
            batch.retry_all(delay_seconds=_delay_of(error, self.runner.limits.delay_seconds))
            return batch.finish(), "RETRY"
        if isinstance(error, Reject):
            if error.requeue:
                batch.retry_all()
                return batch.finish(), "RETRY"
            self.rejected = True
            return batch.finish(
                error.reason if isinstance(error.reason, BaseException) else error
            ), "REJECTED"
        logger.error(
            "cfqueue: the handler of queue %s failed on batch %s of %d: %r",
            self.queue,
            self.batch_id,
            len(batch),
            error,
            exc_info=(type(error), error, error.__traceback__),
        )
        return batch.finish(error), "FAILURE"


def _delay_of(error: CeleryRetry, longest: int) -> int | None:
    """The delay of ``raise Retry(when=…)``: seconds or a date, at most ``longest``; None leaves it to the
    consumer, and so does what is no time.
    """
    when = error.when
    if isinstance(when, datetime):
        when = (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp() - clock.now()
    if isinstance(when, bool) or not isinstance(when, int | float):
        return None
    if isinstance(when, float) and math.isnan(when):
        return None
    return math.ceil(min(max(0, when), longest))  # an int may be too large for a float


def _send(signal: Any, **arguments: Any) -> None:
    """Celery's ``send`` logs what a receiver raises and goes on, so a receiver cannot fail a batch."""
    if signal.receivers:
        signal.send(**arguments)
