"""The seams into Celery's worker: two bootsteps and the splitting of ``-Q``.

``WorkerStep`` starts the I/O loop once the pool runs and stops taking when the worker closes;
``ConsumerStep`` ends the loop after the pool has been joined (``shutdown`` is the only hook that Celery
calls that late). Celery's reconnects stop and start its consumer, not ours.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable
from typing import Any

from celery import bootsteps
from celery.utils.text import str_to_list

logger = logging.getLogger("cfqueue.consumer")


class WorkerStep(bootsteps.StartStopStep):  # type: ignore[misc] # celery ships no types
    """In the worker's blueprint, after the pool."""

    requires = ("celery.worker.components:Pool",)
    label = "cfqueue"

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        worker.cfqueue = None
        # Before the pool forks: its children inherit what they need to run batches.
        self._cf = worker.app.__cfqueue__
        self._cf.prepare_worker(worker)

    def start(self, worker: Any) -> None:
        """Join handlers, settings and broker; errors in them stop the worker before it takes anything."""
        worker.cfqueue = self._cf.make_service(worker)
        if worker.cfqueue is not None and worker.hub is None:
            worker.cfqueue.start(worker.pool, None)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Called at every start of Celery's loop: the hub was emptied if this is a reconnect."""
        if worker.cfqueue is not None:
            worker.cfqueue.start(worker.pool, hub)

    def close(self, worker: Any) -> None:
        """The worker is stopping: take nothing more, give back what has not begun."""
        if worker.cfqueue is not None:
            worker.cfqueue.close()

    def stop(self, worker: Any) -> None:
        """Nothing yet: the pool is still to be joined (see ``ConsumerStep.shutdown``)."""

    def terminate(self, worker: Any) -> None:
        """Nothing yet: the pool is still to be ended."""

    def info(self, worker: Any) -> dict[str, Any]:
        """What ``celery inspect stats`` shows under ``cfqueue``."""
        return {"cfqueue": worker.cfqueue.info()} if worker.cfqueue is not None else {}


class ConsumerStep(bootsteps.StartStopStep):  # type: ignore[misc] # celery ships no types
    """In the consumer's blueprint, for its ``shutdown``, which runs after the pool has ended."""

    label = "cfqueue shutdown"

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)

    def start(self, consumer: Any) -> None:
        """Nothing: ``WorkerStep`` starts the service."""

    def stop(self, consumer: Any) -> None:
        """Nothing: Celery stops its consumer at every reconnect, too."""

    def shutdown(self, consumer: Any) -> None:
        """The pool has ended: settle what it reported, give back the rest, end the loop."""
        service = getattr(consumer.controller, "cfqueue", None)
        if service is not None:
            consumer.controller.cfqueue = None
            service.shutdown()


def split_queues(
    worker: Any, handled: Callable[[], Iterable[str]], known: Callable[[], Iterable[str]]
) -> None:
    """Take our queues out of ``-Q`` and ``-X`` before Celery sees them.

    Celery would declare an unknown name, consume from it, and hand its messages to the plain strategy. The
    worker's ``setup_queues`` is wrapped on this one instance; what was selected is kept on the worker as
    ``cfqueue_queues`` (None: all). ``handled`` are the queues with a handler; ``known`` all of ours, also
    dead-letter queues without one, which nobody consumes.
    """
    original = worker.setup_queues

    def setup_queues(include: Any, exclude: Any = None) -> Any:
        names, all_ours = set(handled()), {*handled(), *known()}
        included, excluded = str_to_list(include) or [], str_to_list(exclude) or []
        selected = [name for name in included if name in names] if included else sorted(names)
        worker.cfqueue_queues = [name for name in selected if name not in excluded]
        theirs = [name for name in included if name not in all_ours]
        _say_what_looks_wrong(worker.app, names, theirs, [n for n in included if n in all_ours - names])
        result = original(theirs, [name for name in excluded if name not in all_ours])
        declared = [name for name in worker.app.amqp.queues.consume_from if name in all_ours]
        default = worker.app.conf.task_default_queue
        if default in declared:
            logger.warning(
                "cfqueue: the handler of queue %r has taken the place of Celery's default queue: this worker runs "
                "none of the tasks sent there. Give the queue another name.",
                default,
            )
        elif declared:
            logger.warning(
                "cfqueue: %s stands in task_queues, too; cfqueue consumes it and Celery's own consumer is kept "
                "off it. Take it out of task_queues.",
                ", ".join(sorted(declared)),
            )
        if declared:
            worker.app.amqp.queues.deselect(declared)
        if included and not theirs:
            # Only our queues were asked for: Celery itself consumes from none.
            worker.app.amqp.queues._consume_from = {}
        return result

    worker.setup_queues = setup_queues


def _say_what_looks_wrong(app: Any, ours: set[str], theirs: Iterable[str], unhandled: Iterable[str]) -> None:
    """No handler at all, or a name in ``-Q`` that is nearly one of ours: Celery would wait there for ever."""
    if not ours:
        logger.warning(
            "cfqueue: this application has a CFQueue and no handler, so there is nothing to consume. Is the module "
            "with @cf.queue imported (include=[...], autodiscover_tasks)?"
        )
    for name in unhandled:
        logger.warning(
            "cfqueue: -Q names %r, a queue of cfqueue without a handler; nobody consumes it. Write a handler for it, "
            "or look at it with peek().",
            name,
        )
    for name in theirs:
        near = difflib.get_close_matches(name, ours, n=1)
        if near and name not in app.amqp.queues:
            logger.warning("cfqueue: -Q names %r, which has no handler. Did you mean %r?", name, near[0])
