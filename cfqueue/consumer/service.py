"""The consumer of one worker, joined from its parts: intake, lines, dispatcher, bridge, loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from celery import signals as celery_signals
from celery.worker import state

from cfqueue.brokers.base import Broker
from cfqueue.messages import Delivery
from cfqueue.messages.outcome import Outcome

from .child import Runner
from .dispatch import Dispatcher
from .lines import Line
from .loop import IOLoop
from .pool import Ended, PoolBridge
from .results import ResultWriter

logger = logging.getLogger("cfqueue.consumer")

#: Seconds that a stopping worker goes on trying to make outcomes durable when the broker refuses them.
_LAST_TRIES = 10.0


class Service:
    """Consumes the queues of one application in one worker."""

    def __init__(
        self,
        *,
        app: Any,
        key: str,
        hostname: str,
        broker: Broker,
        serving: Mapping[str, Runner],
        dead_letter_delay: Callable[[str], int],
        autoscaler: Any = None,
    ) -> None:
        self._app = app
        self._settings = [runner.settings for runner in serving.values()]
        names = {s.queue for s in self._settings} | {
            s.dead_letter_queue for s in self._settings if s.dead_letter_queue
        }
        broker.declare(sorted(names))
        lines = [Line(s, dead_letter_delay(s.dead_letter_queue or "")) for s in self._settings]
        self._bridge = PoolBridge(
            key=key,
            hostname=hostname,
            task_of=lambda queue: serving[queue].task,
            on_end=self._ended,
            on_child=self._wake,
            autoscaler=autoscaler,
        )
        self._results = ResultWriter(app)
        self._dispatcher = Dispatcher(
            broker.intake(),
            lines,
            self._bridge,
            revoked=lambda: state.revoked,
            on_revoked=self._revoked,
            on_result=self._result,
        )
        self._loop = IOLoop(self._dispatcher)
        self._serving = serving

    def start(self, pool: Any, hub: Any | None) -> None:
        """Use this pool and hub; the first call starts the loop."""
        self._bridge.attach(pool, hub)
        if self._loop.started:
            return
        self._say_what_is_weaker()
        self._loop.start()
        logger.info(
            "cfqueue: consuming %s",
            ", ".join(f"{s.queue} (batches of {s.max_batch_size})" for s in self._settings),
        )

    def close(self) -> None:
        """Take nothing more; what is held and has not begun is given back."""
        self._bridge.close()
        self._loop.call(self._dispatcher.stop_taking)

    def shutdown(self) -> None:
        """The pool has ended: make its last outcomes durable, give back what never reported, end the loop."""
        if not self._loop.started:
            self._dispatcher.close()
            return
        done = threading.Event()
        self._loop.call(self._dispatcher.stop_taking)
        if not _is_cold():
            self._bridge.join()
        self._loop.call(self._dispatcher.abandon)
        self._dispatcher.when_settled(done.set)
        self._loop.wake()
        if not done.wait(_LAST_TRIES):
            logger.error(
                "cfqueue: the broker did not take the last outcomes within %d s; their messages will be "
                "delivered again",
                _LAST_TRIES,
            )
        self._loop.stop(_LAST_TRIES)
        self._bridge.detach()
        self._results.close()

    def info(self) -> dict[str, Any]:
        """For ``celery inspect stats``."""
        return {
            "queues": sorted(s.queue for s in self._settings),
            "batches in the pool": len(self._bridge.running),
            "slots": self._bridge.slots,
            "outcomes": dict(self._dispatcher.settlement.counts),
        }

    def _wake(self) -> None:
        self._loop.wake()

    def _ended(self, ended: Ended) -> None:
        self._loop.call(lambda: self._dispatcher.ended(ended))

    def _revoked(self, queue: str, delivery: Delivery) -> None:
        task = self._serving[queue].task
        celery_signals.task_revoked.send(
            sender=task, request=None, terminated=False, signum=None, expired=False
        )
        self._results.revoked(task, delivery)

    def _result(self, line: Line, delivery: Delivery, outcome: Outcome) -> None:
        self._results.write(self._serving[line.name].task, delivery, outcome)

    def _say_what_is_weaker(self) -> None:
        """What this pool cannot do, said once, at start."""
        if self._bridge.kills:
            return
        logger.warning(
            "cfqueue: this pool cannot kill a handler that hangs, only prefork can: time limits have no effect "
            "here, and a handler that ends its process ends the whole worker."
        )


def _is_cold() -> bool:
    """Whether the worker was told to end at once; Celery keeps the exit status there, which may be 0."""
    return state.should_terminate is not None and state.should_terminate is not False
