"""The worker processes of a run: started, killed, stopped, continued, restarted. Touches no other process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import psutil

from . import plan
from .environment import Environment, celery
from .ledger import Ledger

#: Seconds between looks at a condition.
POLL = 0.02
#: Seconds that a graceful stop may take; the handlers of a run take less than a second.
GRACEFUL = 20.0


#: Seconds that a worker may take to come up on a busy machine.
BOOT = 30.0
#: Deaths in a row before a worker came up, after which the run is given up.
FAILED_STARTS = 3
#: What Celery writes into its log when it is up.
READY = b" ready."


class NotInTimeError(Exception):
    """A condition did not come true within its time."""


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return as soon as ``condition()`` holds; NotInTimeError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise NotInTimeError(f"{what} did not happen within {seconds:g} s")
        time.sleep(POLL)


@dataclass(frozen=True, slots=True)
class Spec:
    """How a worker is started."""

    name: str
    pool: str = "prefork"
    concurrency: int = 2
    queues: tuple[str, ...] = plan.WORK_QUEUES


#: The mixed fleet of a full run. A hung handler can only be killed in prefork.
MIXED = (
    Spec("prefork"),
    Spec("threads", "threads", queues=(plan.MAIN,)),
    Spec("solo", "solo", 1, queues=(plan.MAIN,)),
)


@dataclass(slots=True)
class Worker:
    """One incarnation of a spec."""

    spec: Spec
    name: str
    process: subprocess.Popen[bytes]
    log: Path
    expected: str | None = None  # the fault that ends it, once it was asked to end
    continues_at: float | None = None

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def ready(self) -> bool:
        """Has it come up? Before, Celery has not yet said what SIGTERM means."""
        return READY in self.log.read_bytes()

    @property
    def stopped(self) -> bool:
        return self.continues_at is not None

    def children(self) -> list[int]:
        try:
            return sorted(child.pid for child in psutil.Process(self.process.pid).children())
        except psutil.NoSuchProcess:
            return []

    def signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


@dataclass
class Fleet:
    """All workers of a run, by the name of their spec."""

    environment: Environment
    ledger: Ledger
    workers: dict[str, Worker] = field(default_factory=dict)
    _incarnations: dict[str, int] = field(default_factory=dict)
    _failed_starts: int = 0
    _past: list[Worker] = field(default_factory=list)

    def start(self, specs: Iterable[Spec]) -> None:
        for spec in specs:
            number = self._incarnations[spec.name] = self._incarnations.get(spec.name, 0) + 1
            name = f"{spec.name}.{number}"
            path = self.environment.folder / "logs" / f"{name}.log"
            with path.open("wb") as log:
                process = subprocess.Popen(
                    celery(
                        *("worker", "--pool", spec.pool, "-c", str(spec.concurrency), "-n", f"{name}@chaos"),
                        *("-Q", ",".join(spec.queues), "--loglevel", "INFO"),
                        *("--without-mingle", "--without-gossip"),
                    ),
                    env=replace(self.environment, worker=name).variables(),
                    cwd=self.environment.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # so that its children can be found and ended with it
                )
            self.workers[spec.name] = Worker(spec, name, process, path)

    def mend(self) -> None:
        """Continue what was stopped long enough, restart what has died."""
        for worker in list(self.workers.values()):
            if worker.continues_at is not None and time.monotonic() >= worker.continues_at:
                self.cont(worker)
            if not worker.alive:
                self.write_death(worker)
                self._past.append(worker)
                self._count_failed_start(worker)
                self.start([worker.spec])

    def _count_failed_start(self, worker: Worker) -> None:
        failed = worker.expected is None and not worker.ready
        self._failed_starts = self._failed_starts + 1 if failed else 0
        if self._failed_starts >= FAILED_STARTS:
            raise NotInTimeError(f"{worker.name} does not start, see {worker.log}")

    def write_death(self, worker: Worker) -> None:
        pid, status = worker.process.pid, worker.process.returncode
        if worker.expected is None or (worker.expected == "term" and status != 0):
            self.ledger.write("fault", fault="found-dead", worker=worker.name, victim=pid, status=status)

    # Each fault is written down before it is done: a cause stands before its effects in the account.

    def kill_main(self, worker: Worker) -> None:
        self._write("kill-main", worker, worker.process.pid)
        worker.expected = "kill-main"
        worker.process.kill()

    def kill_group(self, worker: Worker) -> None:
        self._write("kill-group", worker, worker.process.pid)
        worker.expected = "kill-group"
        worker.signal_group(signal.SIGKILL)

    def kill_child(self, worker: Worker, pid: int) -> None:
        self._write("kill-child", worker, pid)
        with contextlib.suppress(ProcessLookupError):  # it has died by itself meanwhile
            os.kill(pid, signal.SIGKILL)

    def term(self, worker: Worker) -> None:
        self._write("term", worker, worker.process.pid)
        worker.expected = "term"
        worker.process.terminate()

    def stop(self, worker: Worker, seconds: float) -> None:
        """SIGSTOP the worker and its children; ``mend`` continues them after ``seconds``."""
        self._write("stop", worker, worker.process.pid)
        worker.continues_at = time.monotonic() + seconds
        worker.signal_group(signal.SIGSTOP)

    def cont(self, worker: Worker) -> None:
        worker.signal_group(signal.SIGCONT)
        worker.continues_at = None
        self._write("cont", worker, worker.process.pid)

    def _write(self, fault: str, worker: Worker, victim: int) -> None:
        self.ledger.write("fault", fault=fault, worker=worker.name, victim=victim)

    def retire(self) -> list[str]:
        """Stop everything gracefully; a complaint for each that did not end in time."""
        for worker in self.workers.values():
            if worker.stopped:
                self.cont(worker)
            if worker.alive and worker.expected is None:
                wait_until(partial(_up_or_down, worker), BOOT, f"the start of {worker.name}")
                self.term(worker)
        late = []
        for worker in self.workers.values():
            try:
                worker.process.wait(GRACEFUL)
            except subprocess.TimeoutExpired:
                late.append(f"{worker.name} did not stop within {GRACEFUL:g} s")
            else:
                self.write_death(worker)
        self._past.extend(self.workers.values())
        self.workers.clear()
        return late

    def close(self) -> None:
        """End whatever is left of this fleet, orphaned children too."""
        for worker in [*self._past, *self.workers.values()]:
            worker.signal_group(signal.SIGCONT)
            worker.signal_group(signal.SIGKILL)
            worker.process.wait()


def _up_or_down(worker: Worker) -> bool:
    return worker.ready or not worker.alive
