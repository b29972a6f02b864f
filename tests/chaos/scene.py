"""A small, exact scenario: single workers, and handlers that wait at gates until the scenario opens them."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Self

from . import plan
from .backlog import Observer
from .checker import Report, check
from .environment import Environment
from .fleet import Fleet, NotInTimeError, Spec, Worker, wait_until
from .ledger import Event, Ledger, read
from .producer import Producer
from .run import UNDERTAKER

#: Seconds for anything that must happen; a worker starts in two.
PATIENCE = 25.0


class Scene:
    """One scenario and its account. ``with Scene(environment) as scene:`` ends all its processes."""

    def __init__(self, environment: Environment) -> None:
        environment.prepare()
        self.environment = environment
        self.ledger = Ledger(environment.ledger, "harness")
        self.fleet = Fleet(environment, self.ledger)
        self._observer = Observer(environment)
        self._producer = Producer(environment, seed=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.fleet.close()

    def send(self, *keys: str) -> None:
        self._producer.send([plan.Planned(key, plan.MAIN, plan.role_of(key), 0, 0) for key in keys])

    def worker(self, name: str, pool: str = "solo") -> Worker:
        self.fleet.start([Spec(name, pool, 1, (plan.MAIN,))])
        return self.fleet.workers[name]

    def until_ready(self, worker: Worker) -> None:
        wait_until(lambda: worker.ready, PATIENCE, f"the start of {worker.name}")

    def stop(self, worker: Worker) -> None:
        """Until ``fleet.cont``."""
        self.fleet.stop(worker, math.inf)

    def open(self, gate: str) -> None:
        self.environment.gate(gate).touch()

    def events(self, kind: str) -> list[Event]:
        return [event for event in read(self.environment.ledger) if event["kind"] == kind]

    def runs(self, key: str) -> int:
        """How often this message was given to a handler."""
        return sum(any(key == seen for seen, *_ in event["messages"]) for event in self.events("start"))

    def ended(self, worker: Worker) -> bool:
        """Has a handler of this worker returned?"""
        pid = worker.process.pid
        return any(event["pid"] == pid for event in self.events("end"))

    def until_runs(self, key: str, times: int) -> None:
        def done() -> bool:
            if not all(worker.alive for worker in self.fleet.workers.values()):
                raise NotInTimeError(
                    f"run {times} of {key}: a worker has died; see {self.environment.folder}/logs"
                )
            return self.runs(key) >= times

        wait_until(done, PATIENCE, f"run {times} of {key}")

    def gives_time_for_run(self, key: str, times: int, seconds: float) -> bool:
        """Whether something that must not happen did happen within ``seconds``."""
        try:
            wait_until(lambda: self.runs(key) >= times, seconds, f"run {times} of {key}")
        except NotInTimeError:
            return False
        return True

    def verdict(self) -> Report:
        """Wait until everything is settled, read the dead letters, and judge."""
        try:
            wait_until(lambda: self._observer.settled((plan.MAIN,)), PATIENCE, "settling")
            self.fleet.retire()
            if not self._observer.settled((plan.DEAD,)):
                self.fleet.start([UNDERTAKER])
                wait_until(lambda: self._observer.settled((plan.DEAD,)), PATIENCE, "reading dead letters")
                self.fleet.retire()
        except NotInTimeError as error:
            self.ledger.write("stalled", seconds=PATIENCE, what=str(error))
        left = self._observer.left(plan.MAIN)
        self.ledger.write(
            "left", queue=plan.MAIN, waiting=left.waiting, delayed=left.delayed, leased=left.leased
        )
        return check(read(self.environment.ledger))
