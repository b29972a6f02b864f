"""The Celery task that stands for a queue: ``cfqueue.queue.<name>``, in the registry like any other.

It gives a handler ``delay``, ``apply_async`` and eager mode. A worker with cfqueue never runs it: there the
queue's messages go through batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from celery.app.task import Task
from celery.exceptions import Retry as CeleryRetry
from celery.result import EagerResult
from kombu.utils.uuid import uuid

from cfqueue import clock
from cfqueue.errors import BadArguments, CFQueueError, InvalidDelay, InvalidMessage
from cfqueue.messages import Ack, Message, MessageBatch, Retry, settle
from cfqueue.messages.content import decode_body, encode_body
from cfqueue.messages.context import Context
from cfqueue.messages.invocation import invoke
from cfqueue.messages.message import moment
from cfqueue.messages.outcome import Outcome

from .child import Runner

#: Options of ``apply_async`` that say where a Celery message goes or how it is written. A queue handler has
#: one queue and one format, so they have nothing to decide; callers pass them without meaning harm.
_WITHOUT_EFFECT = frozenset(
    {
        "queue", "routing_key", "exchange", "serializer", "compression", "retry", "retry_policy",
        "connection", "router", "add_to_parent", "shadow", "producer", "group_id", "group_index",
        "root_id", "parent_id", "reply_to", "time_limit", "soft_time_limit", "stamped_headers",
        "delivery_mode", "mandatory", "immediate",
    }
)  # fmt: skip
_CANVAS = ("link", "link_error", "chord", "chain")


class MessageFailed(CFQueueError):
    """In eager mode, and in the result backend: the message was dead-lettered. Says why."""


class QueueTask(Task):  # type: ignore[misc] # celery ships no types
    """Base of the tasks that stand for queues. ``publish`` and ``runner`` are set by the application."""

    abstract = True
    Strategy = "cfqueue.consumer.forward:strategy"
    typing = False
    acks_late = True

    #: (body, id, delay seconds or None, priority, expires, ignore_result, headers) -> nothing
    publish: Callable[..., None]
    #: Publishes a message that was built already.
    forward: Callable[[Any], None]
    runner: Callable[[], Runner]

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> Any:
        """Send one message whose body is the only positional argument; return its ``AsyncResult``.

        Takes Celery's ``countdown``, ``eta``, ``expires``, ``priority``, ``task_id``, ``headers`` and
        ``ignore_result``. Links, chords and chains are refused: an outcome of a message is an ack or a dead
        letter, not a value to pass on.
        """
        body = self._body(args, kwargs)
        self._refuse_canvas(options)
        if self._get_app().conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        task_id = options.pop("task_id", None) or uuid()
        delay = _delay(options.pop("countdown", None), options.pop("eta", None))
        expires = options.pop("expires", None)
        if isinstance(expires, datetime) and expires.tzinfo is None:
            expires = expires.replace(tzinfo=UTC)  # Celery's own reading of a date without a zone
        ignore = options.pop("ignore_result", None)
        priority, headers = options.pop("priority", None), options.pop("headers", None)
        strange = options.keys() - _WITHOUT_EFFECT
        if strange:
            raise InvalidMessage(
                f"{self.name}.apply_async() does not know the option {min(strange)!r}. It takes countdown, "
                "eta, expires, priority, task_id, ignore_result and headers."
            )
        self.publish(
            body,
            message_id=task_id,
            delay_seconds=delay,
            priority=priority,
            expires=expires,
            ignore_result=bool(self.ignore_result if ignore is None else ignore),
            headers=headers,
        )
        return self.AsyncResult(task_id)

    def retry(self, *_: Any, countdown: float | None = None, eta: datetime | None = None, **__: Any) -> Any:
        """Raise Celery's ``Retry``: the whole batch is retried, except what was acked explicitly."""
        when = eta if eta is not None else countdown
        raise CeleryRetry("cfqueue: retry of the batch", when=when)

    def apply(
        self, args: Sequence[Any] | None = None, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> Any:
        """Run the handler here and now on a batch of one (eager mode); retries follow at once.

        Returns an ``EagerResult``: SUCCESS for an ack, FAILURE with ``MessageFailed`` for a dead letter.
        """
        body = self._body(args, kwargs)
        task_id = options.get("task_id") or uuid()
        throw = options.get("throw")
        if throw is None:
            throw = self._get_app().conf.task_eager_propagates
        outcome, error = self._attempts(task_id, body)
        if isinstance(outcome, Ack):
            return EagerResult(task_id, None, "SUCCESS", name=self.name)
        failure = MessageFailed(
            f"Message {task_id} of {self.name} was given up: {getattr(outcome, 'reason', 'retried')}"
        )
        failure.__cause__ = error
        if throw:
            raise error or failure
        return EagerResult(task_id, failure, "FAILURE", name=self.name)

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Run by a plain Celery consumer, without batches: raise so that Celery retries or fails it."""
        outcome, error = self._attempts(self.request.id or uuid(), self._body(args, kwargs))
        if not isinstance(outcome, Ack):
            raise error or MessageFailed(f"The message of {self.name} was given up: {outcome}")

    def _attempts(self, task_id: str, body: Any) -> tuple[Outcome, BaseException | None]:
        runner = self.runner()
        settings = runner.settings
        # What a worker would see: tuples become lists, and what cannot be sent is refused here as well.
        body = decode_body(encode_body(body, "json"), "json")
        attempt = 0
        while True:
            attempt += 1
            message = Message(task_id, moment(clock.now_ms()), body, attempt, "json", settings.queue)
            batch = MessageBatch(
                settings.queue,
                [message],
                metrics=lambda: runner.metrics(settings.queue),
                limits=runner.limits,
            )
            error: Exception | None = None
            try:
                invoke(runner.handler, runner.arguments, batch, runner.env(), Context())
            except Exception as raised:
                error = raised
            outcome = settle(batch.finish(error), [(task_id, attempt)], settings)[0]
            if not isinstance(outcome, Retry):
                return outcome, error

    def _body(self, args: Sequence[Any] | None, kwargs: dict[str, Any] | None) -> Any:
        if args is not None and not isinstance(args, list | tuple):
            raise BadArguments(
                f"{self.name}.apply_async() takes its arguments as a list or tuple, not as {args!r:.80}: write "
                "apply_async([body])."
            )
        if kwargs or args is None or len(args) != 1:
            raise BadArguments(
                f"{self.name} takes exactly one positional argument, the message's body; it was given "
                f"{len(args or ())} positional and {len(kwargs or {})} keyword arguments. Put them into one "
                "value: handler.delay({'id': 1, 'name': 'x'})."
            )
        return args[0]

    def _refuse_canvas(self, options: dict[str, Any]) -> None:
        for name in _CANVAS:
            if options.pop(name, None):
                raise InvalidMessage(
                    f"{self.name} cannot carry {name!r}: a message of a queue ends with an ack or in the "
                    "dead-letter queue and has no result to pass on. Nothing was sent. Start the next step "
                    "from the handler, or use an ordinary Celery task."
                )


def _delay(countdown: Any, eta: Any) -> int | None:
    """Whole seconds, rounded up, so that nothing is ever early. None when neither was given."""
    if countdown is None and eta is None:
        return None
    if countdown is None:
        if not isinstance(eta, datetime):
            raise InvalidDelay(f"eta={eta!r} is not a date.")
        zoned = eta if eta.tzinfo is not None else eta.replace(tzinfo=UTC)
        countdown = max(0.0, zoned.timestamp() - clock.now())
    if isinstance(countdown, bool) or not isinstance(countdown, int | float) or not 0 <= countdown < math.inf:
        raise InvalidDelay(f"countdown={countdown!r} is not a number of seconds from 0.")
    return -int(-countdown // 1)
