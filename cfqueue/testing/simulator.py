"""The queue service in one process."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, Never

from cfqueue.brokers.base import Backlog, Intake
from cfqueue.config import Config, binding_of, consumer_settings
from cfqueue.config.suggestion import did_you_mean
from cfqueue.env import Env
from cfqueue.errors import ConfigurationError, QueueConsumerConflict
from cfqueue.limits import (
    CLOUDFLARE,
    DEFAULT_MAX_BATCH_SIZE,
    DEFAULT_MAX_BATCH_TIMEOUT,
    DEFAULT_MAX_RETRIES,
    DEFAULT_RETRY_DELAY,
    Limits,
)
from cfqueue.messages import (
    BacklogMetrics,
    Batcher,
    DeadLetter,
    Delivery,
    Drop,
    MessageBatch,
    Outcome,
    OutgoingMessage,
    Retry,
    buried,
    check_delay,
    check_queue_name,
    dead_letter_headers,
    read_message,
    settle,
)
from cfqueue.messages.envelope import TIMESTAMP_HEADER
from cfqueue.messages.invocation import count_arguments
from cfqueue.messages.message import moment
from cfqueue.messages.outcome import EXPIRED
from cfqueue.producer import Queue
from cfqueue.testing.handlers import Handler, result_of, run
from cfqueue.testing.lines import Consumer, Delivered, Dropped, Line, Seen

#: Batches that may follow each other at one instant before it counts as an endless circle.
_MOST_AT_ONCE: Final = 100_000
#: Seconds that the clock can be moved at once: the longest delay is a day, so this is far beyond any test.
_FOREVER: Final = 1e9
#: Settings of a consumer that mean something to a worker only.
_WITHOUT_EFFECT: Final = frozenset(("max_concurrency", "time_limit", "soft_time_limit"))


class Simulator:
    """The whole queue service in one process, with a clock that stands still until it is moved.

    A handler takes no time, and a queue runs one batch at a time. Batching, delays, retries and dead letters
    follow Cloudflare's simulator (miniflare) to the millisecond, with three differences: an ack survives a
    later failure of its batch, as Cloudflare documents; a queue without a consumer keeps its messages; the
    defaults are those of production (batches of 10, 5 seconds, 3 retries). Priorities are checked, but change
    nothing here.

    Args:
        start: what the clock shows at first, in seconds since the epoch.
        limits: the sizes that apply.

    """

    def __init__(self, start: float = 0.0, *, limits: Limits = CLOUDFLARE) -> None:
        #: Every call of a handler so far, in order.
        self.deliveries: list[Delivered] = []
        #: Every message given up so far, in order.
        self.dropped: list[Dropped] = []
        #: What handlers receive as ``env``: every queue of the simulator by its binding (``env.JOBS``).
        self.env = Env(self._bound, lambda: self._bindings)
        self._limits = limits
        self._start_ms = round(start * 1000)
        self._now_ms = 0  # from the start; whole, so that times add up exactly
        self._lines: dict[str, Line] = {}
        self._bindings: dict[str, Queue] = {}
        self._events: list[tuple[int, int, Line, Delivery | None]] = []
        self._ready: deque[tuple[Line, Consumer, list[Delivery], BacklogMetrics]] = deque()
        self._broker = _Broker(self)
        self._count = 0
        self._at_work = False

    @property
    def now(self) -> float:
        """Seconds from the start."""
        return self._now_ms / 1000

    def queue(self, name: str, delivery_delay: int | None = None) -> Queue:
        """Return the producer of a queue, with ``send``, ``send_batch`` and ``metrics``.

        Args:
            name: of the queue; it need not have a consumer.
            delivery_delay: seconds for messages that are sent without a delay; 0 at first, and as it was
                when left out.

        Raises:
            InvalidQueueName, InvalidDelay: that cannot be.

        """
        line = self._line(check_queue_name(name))
        delay = check_delay(delivery_delay, what="delivery_delay", limits=self._limits)
        if delay is not None:
            line.delivery_delay = delay
        return line.producer

    def consumer(
        self,
        name: str,
        handler: Handler,
        *,
        max_batch_size: int = DEFAULT_MAX_BATCH_SIZE,
        max_batch_timeout: int = DEFAULT_MAX_BATCH_TIMEOUT,
        max_retries: int = DEFAULT_MAX_RETRIES,
        retry_delay: int = DEFAULT_RETRY_DELAY,
        dead_letter_queue: str | None = None,
        env: Any = None,
        **unknown: Never,
    ) -> None:
        """Let ``handler`` consume a queue. Messages that wait there already begin to fill a batch now.

        Args:
            name: of the queue.
            handler: ``(batch)``, ``(batch, env)`` or ``(batch, env, ctx)``, ``def`` or ``async def``.
            max_batch_size: 1 to 100 messages.
            max_batch_timeout: 0 to 60 seconds from the first message of a partial batch to its delivery.
            max_retries: 0 to 100; N gives at most N + 1 deliveries.
            retry_delay: 0 to 86,400 seconds before a failed message is delivered again.
            dead_letter_queue: where exhausted messages go; None: to ``dropped``.
            env: what the handler receives instead of ``Simulator.env``.
            **unknown: refused, with the name that was probably meant.

        Raises:
            ConfigurationError: a setting is unknown or out of its range.
            QueueConsumerConflict: the queue has a consumer.
            HandlerSignatureError: the handler cannot be called so.

        """
        owner = getattr(handler, "__qualname__", repr(handler))
        place = f"Simulator.consumer({name!r})"
        keywords = {
            "max_batch_size": max_batch_size,
            "max_batch_timeout": max_batch_timeout,
            "max_retries": max_retries,
            "retry_delay": retry_delay,
            "dead_letter_queue": dead_letter_queue,
        }
        for strange in unknown:
            raise ConfigurationError(f"{place}: {_no_setting(strange, [*keywords, 'env'])}")
        settings = consumer_settings(Config(limits=self._limits), name, keywords, owner, place=place)
        count_arguments(handler, name)
        line = self._line(name)
        if line.consumer is not None:
            raise QueueConsumerConflict(
                f"Queue {name!r} has a consumer in this simulator: {line.consumer.owner}."
            )
        line.consumer = Consumer(settings, handler, self.env if env is None else env, owner)
        parked, line.batcher = (
            line.batcher,
            Batcher(settings.max_batch_size, settings.max_batch_timeout * 1000),
        )
        for waiting in parked:
            self._arrive(line, waiting)
        self._work()

    def advance(self, seconds: float) -> None:
        """Move the clock forward; everything that falls due on the way happens, in the order of its time.

        Raises:
            ValueError: ``seconds`` is negative, or no number of seconds.
            RuntimeError: called by a handler.

        """
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < _FOREVER:
            raise ValueError(f"advance() takes a number of seconds, not negative, but {seconds!r} was given.")
        if self._at_work:
            raise RuntimeError("A handler cannot move the clock; call advance() in the test.")
        end = self._now_ms + round(seconds * 1000)
        while self._events and self._events[0][0] <= end:
            self._now_ms = self._events[0][0]
            self._happen()
            self._work()
        self._now_ms = end

    # Behind the producers

    def _line(self, name: str) -> Line:
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = Line(name)
            line.producer = Queue(
                name,
                lambda: self._broker,
                limits=lambda: self._limits,
                delivery_delay=lambda: line.delivery_delay,
            )
            self._bindings[binding_of(name)] = line.producer
        return line

    def _bound(self, name: str) -> Queue:
        return self._bindings[name]

    def _publish(self, message: OutgoingMessage) -> None:
        # The producer reads the machine's clock; here the hand-moved one counts.
        now_ms = self._start_ms + self._now_ms
        delivery = Delivery(
            message.queue,
            message.id,
            {**message.headers, TIMESTAMP_HEADER: now_ms},
            message.body,
            priority=message.priority,
            timestamp_ms=now_ms,
            expires_ms=message.expires_ms and message.expires_ms - message.timestamp_ms + now_ms,
            tag=message.size,
        )
        self._enqueue(self._line(message.queue), delivery, message.delay_seconds)

    def _purge(self, name: str) -> int:
        line = self._line(name)
        removed = len(line.batcher.clear()) + line.delayed
        self._events = [event for event in self._events if event[2] is not line or event[3] is None]
        heapq.heapify(self._events)
        line.delayed, line.planned = 0, None
        return removed

    # One queue's life

    def _enqueue(self, line: Line, delivery: Delivery, delay_seconds: int) -> None:
        if delay_seconds:
            line.delayed += 1
            self._schedule(self._now_ms + delay_seconds * 1000, line, delivery)
        else:
            self._arrive(line, delivery)

    def _happen(self) -> None:
        """Let everything that is planned for this instant happen, before any handler runs."""
        while self._events and self._events[0][0] == self._now_ms:
            _, number, line, delivery = heapq.heappop(self._events)
            if delivery is not None:
                line.delayed -= 1
                self._arrive(line, delivery)
            elif number == line.planned and line.consumer is not None and line.batcher.due(self._now_ms):
                self._take(line, line.consumer)

    def _schedule(self, at_ms: int, line: Line, delivery: Delivery | None) -> int:
        self._count += 1  # what falls due together happens in the order in which it was planned
        heapq.heappush(self._events, (at_ms, self._count, line, delivery))
        return self._count

    def _arrive(self, line: Line, delivery: Delivery) -> None:
        line.batcher.add(delivery, self._now_ms)
        self._look_at(line)

    def _look_at(self, line: Line) -> None:
        """Take a batch when it is full, else plan to take it when its time has come."""
        if line.consumer is None or line.running or not line.batcher:
            return
        batcher = line.batcher
        if len(batcher) >= batcher.size or not batcher.timeout:
            self._take(line, line.consumer)
        elif line.planned is None and batcher.deadline is not None:
            line.planned = self._schedule(int(batcher.deadline), line, None)

    def _take(self, line: Line, consumer: Consumer) -> None:
        batch = line.batcher.take(self._now_ms)
        line.planned = None
        line.running = len(batch)
        backlog = line.backlog()
        oldest = None if backlog.oldest_ms is None else moment(backlog.oldest_ms)
        self._ready.append((line, consumer, batch, BacklogMetrics(backlog.count, backlog.bytes, oldest)))

    def _work(self) -> None:
        """Run the batches that are due, and those that become due by it, until none is."""
        if self._at_work:
            return  # a handler sends: its messages are delivered when it has ended
        self._at_work = True
        try:
            for _ in range(_MOST_AT_ONCE):
                if not self._ready:
                    return
                self._deliver(*self._ready.popleft())
            raise RuntimeError(
                f"{_MOST_AT_ONCE} batches were delivered without the clock moving: messages go "
                "round in a circle. Give the consumer a retry_delay or a max_batch_timeout."
            )
        finally:
            self._at_work = False

    def _deliver(
        self, line: Line, consumer: Consumer, deliveries: list[Delivery], metrics: BacklogMetrics
    ) -> None:
        settings = consumer.settings
        now_ms = self._start_ms + self._now_ms
        expired = [each for each in deliveries if each.expires_ms is not None and each.expires_ms <= now_ms]
        alive = [each for each in deliveries if each not in expired]
        fates: list[tuple[Delivery, Outcome]] = [(each, buried(EXPIRED, settings)) for each in expired]
        if alive:
            fates.extend(zip(alive, self._run(line, consumer, alive, metrics), strict=True))
        dead: list[tuple[Delivery, DeadLetter | Drop]] = []
        for delivery, outcome in fates:
            if isinstance(outcome, Retry):
                first = now_ms if delivery.first_failed_ms is None else delivery.first_failed_ms
                again = replace(delivery, attempts=delivery.attempts + 1, first_failed_ms=first)
                self._enqueue(line, again, outcome.delay_seconds)
            elif isinstance(outcome, DeadLetter | Drop):
                dead.append((delivery, outcome))
        line.running = 0
        self._look_at(line)
        for delivery, end in dead:
            self._bury(line, settings.dead_letter_queue, delivery, end)

    def _run(
        self, line: Line, consumer: Consumer, deliveries: list[Delivery], metrics: BacklogMetrics
    ) -> list[Outcome]:
        batch = MessageBatch(
            line.name,
            [read_message(each) for each in deliveries],
            metrics=lambda: metrics,
            limits=self._limits,
        )
        seen = tuple(Seen(each.id, each.body, each.attempts, each.timestamp) for each in batch)
        record, error = run(batch, consumer.handler, consumer.env)
        self.deliveries.append(Delivered(self.now, line.name, seen, result_of(record, error)))
        return settle(record, [(each.id, each.attempts) for each in seen], consumer.settings)

    def _bury(self, line: Line, target: str | None, delivery: Delivery, outcome: DeadLetter | Drop) -> None:
        message = read_message(delivery)
        if isinstance(outcome, Drop) or target is None:
            self.dropped.append(
                Dropped(
                    self.now,
                    line.name,
                    outcome.reason,
                    message.id,
                    message.body,
                    message.attempts,
                    message.timestamp,
                )
            )
            return
        now_ms = self._start_ms + self._now_ms
        why = dead_letter_headers(
            outcome.reason, line.name, delivery.attempts, delivery.first_failed_ms, now_ms, outcome.error
        )
        grave = self._line(target)
        moved = replace(
            delivery,
            queue=target,
            attempts=1,
            expires_ms=None,
            first_failed_ms=None,
            headers={**delivery.headers, **why},
        )
        self._enqueue(grave, moved, grave.delivery_delay)


def _no_setting(name: str, known: Sequence[str]) -> str:
    if name in _WITHOUT_EFFECT:
        return (
            f"{name} has no effect in a simulator, where a handler takes no time and a queue runs one batch "
            "at a time. Leave it out."
        )
    return f"there is no setting {name!r}.{did_you_mean(name, known)}"


class _Broker:
    """What the producers of a simulator publish to."""

    family = "simulator"

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def declare(self, queues: Iterable[str]) -> None:
        for name in queues:
            self._simulator._line(name)

    def publish(
        self,
        messages: Sequence[OutgoingMessage],
        *,
        timeout: float | None = None,  # noqa: ARG002 - nothing to wait for
    ) -> None:
        for message in messages:
            self._simulator._publish(message)
        self._simulator._work()

    def backlog(self, queue: str) -> Backlog:
        return self._simulator._line(queue).backlog()

    def peek(self, queue: str, limit: int = 10) -> list[Delivery]:
        return list(self._simulator._line(queue).batcher)[:limit]

    def purge(self, queue: str) -> int:
        return self._simulator._purge(queue)

    def intake(self) -> Intake:
        raise NotImplementedError("A simulator needs no worker: give it consumers.")

    def close(self) -> None:
        pass
