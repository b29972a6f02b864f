"""The consumer of one worker, driven by hand: a real file, real lines, no thread, no process, no waiting.

``Stage`` plays what surrounds the consumer: Celery's pool (``Pool``, which runs a batch when the test says so,
or lets it die), Celery's event loop (``Hub``) and the worker. One ``turn`` is one turn of the I/O loop.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from billiard.exceptions import Terminated, WorkerLostError

from cfqueue import CFQueue, clock
from cfqueue.consumer.batch import Report
from cfqueue.consumer.child import runners
from cfqueue.consumer.pool import PoolBridge
from cfqueue.messages import Delivery, build_message

#: Seconds within which a condition must come true on a machine that is busy with other things.
PATIENCE = 30.0


def delivery(body: Any = None, queue: str = "jobs", id: str | None = None, **fields: Any) -> Delivery:  # noqa: A002
    """A message as a broker delivers it."""
    made = build_message(queue, body, timestamp_ms=clock.now_ms(), message_id=id)
    return Delivery(queue, made.id, made.headers, made.body, timestamp_ms=made.timestamp_ms, **fields)


class Job:
    """A batch in the pool."""

    def __init__(self, pool: Pool, target: Any, args: Any, options: dict[str, Any]) -> None:
        self._pool = pool
        self._target = target
        self._args = args
        self.options = options
        self.batch_id: str = options["correlation_id"]
        #: The ids of its messages.
        self.ids = pool.ids_of(self.batch_id)

    def ready(self) -> bool:
        return self not in self._pool.jobs

    def accept(self) -> None:
        self.options["accept_callback"](os.getpid(), time.monotonic())

    def run(self) -> Report:
        """A pool process takes the batch and runs it."""
        self.accept()
        report: Report = self._target(*self._args)
        self.end(report)
        return report

    def end(self, report: Any) -> None:
        self._pool.jobs.remove(self)
        self.options["callback"](report)

    def die(self, error: BaseException | None = None) -> None:
        """The pool process died under the batch; billiard wraps what it knows of it."""
        self._pool.jobs.remove(self)
        failure = WorkerLostError("signal 9") if error is None else error
        self.options["error_callback"](SimpleNamespace(exception=failure))

    def killed(self) -> None:
        """The pool process was killed by command."""
        self.die(Terminated(-15))


class Pool:
    """Celery's pool, without processes."""

    def __init__(self, slots: int, bridge: PoolBridge) -> None:
        self.num_processes = slots
        self._bridge = bridge
        self.jobs: list[Job] = []
        self.refuses: Exception | None = None

    def apply_async(self, target: Any, args: Any, **options: Any) -> Job:
        if self.refuses is not None:
            raise self.refuses
        job = Job(self, target, args, options)
        self.jobs.append(job)
        return job

    def ids_of(self, batch_id: str) -> list[str]:
        """The messages of the batch that is handed over now."""
        [batch] = [batch for batch in self._bridge.running.values() if batch.id == batch_id]
        return [delivery.id for delivery in batch.deliveries]


class Hub:
    """Celery's event loop: calls back when a descriptor is readable."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}

    def add_reader(self, descriptor: int, callback: Callable[[], None]) -> None:
        self.readers[descriptor] = callback

    def remove(self, descriptor: int) -> None:
        del self.readers[descriptor]

    def turn(self) -> None:
        for descriptor in readable(list(self.readers)):
            self.readers[descriptor]()


def readable(descriptors: list[int], timeout: float = 0.0) -> list[int]:
    return select.select(descriptors, [], [], timeout)[0]


class Stage:
    """A worker's consumer on a stage."""

    def __init__(self, cf: CFQueue, slots: int = 1, **worker: Any) -> None:
        self.cf = cf
        self.worker = SimpleNamespace(hostname="w@test", cfqueue_queues=None, **worker)
        cf.prepare_worker(self.worker)
        service = cf.make_service(self.worker)
        assert service is not None
        self.service = service
        self.dispatcher = service._dispatcher
        self.bridge = service._bridge
        self.lines = self.dispatcher.lines
        self.pool = Pool(slots, self.bridge)
        self.hub = Hub()
        self.bridge.attach(self.pool, self.hub)

    @property
    def jobs(self) -> list[Job]:
        """What the pool was given and has not ended, in order."""
        return self.pool.jobs

    def turn(self) -> float | None:
        """One turn of the I/O loop, then one of Celery's."""
        loop, dispatcher = self.service._loop, self.dispatcher
        for descriptor in readable(dispatcher.descriptors()):
            dispatcher.readable(descriptor)
        while loop._events:
            loop._events.popleft()()
        again = dispatcher.turn()
        self.hub.turn()
        return again

    def until(self, condition: Callable[[], Any], *, running: bool = True) -> Any:
        """Take turns until the condition holds; with ``running``, batches run as they come."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < deadline, "never came true"
            self.turn()
            for job in list(self.jobs) if running else ():
                job.run()
            if not self.service._loop._events:
                readable(self.dispatcher.descriptors(), 0.005)
        return found

    def given(self, count: int = 1) -> list[Job]:
        """Take turns until the pool has been given so many batches."""
        self.until(lambda: len(self.jobs) >= count, running=False)
        return list(self.jobs)

    def drained(self, *queues: str) -> None:
        """Run everything until these queues are empty."""
        self.until(lambda: all(self.counts(queue) == (0, 0, 0) for queue in queues))

    def counts(self, queue: str = "jobs") -> tuple[int | None, int | None, int | None]:
        """How many messages wait, are delayed and are held."""
        found = self.cf.broker.backlog(queue)
        return found.count, found.delayed, found.in_flight

    def letters(self, queue: str = "jobs-dlq") -> dict[str, str]:
        """The dead letters: id -> reason."""
        return {letter.id: letter.headers["cfq-reason"] for letter in self.cf.queues[queue].peek(100)}

    def close(self) -> None:
        loop = self.service._loop
        self.service.shutdown()
        self.service._results.close()
        self.bridge.detach()
        if not loop.started:
            for descriptor in (loop._wake_r, loop._wake_w):
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        for key in [key for key in runners if key[0] == self.cf._key]:
            del runners[key]


class Refusing:
    """An intake whose broker refuses while ``error`` is set."""

    def __init__(self, intake: Any) -> None:
        self._intake = intake
        self.error: Exception | None = None
        #: What was asked for, turn by turn.
        self.asked: list[list[Any]] = []

    def turn(self, moves: Any) -> list[object]:
        self.asked.append(list(moves))
        if self.error is not None:
            raise self.error
        found: list[object] = self._intake.turn(moves)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._intake, name)
