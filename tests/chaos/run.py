"""One run, from the first worker to the last dead letter."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from . import plan
from .backlog import Observer
from .checker import Report, Rules, check
from .environment import Environment, python
from .fleet import MIXED, Fleet, NotInTimeError, Spec, Worker, wait_until
from .ledger import Ledger, read
from .progress import Progress

#: Seconds without any event after which the run counts as stuck (I11).
STUCK = 30.0
#: Seconds without any event after which an idle process may be hit too.
IDLE = 0.5
#: The worker that empties the dead-letter queue at the end.
UNDERTAKER = Spec("undertaker", "solo", 1, queues=(plan.DEAD,))


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    seed: int
    messages: int
    kills: int
    producers: int = 2


class Run:
    """Sends step by step, hits processes as planned, waits until everything is settled, and judges."""

    def __init__(
        self,
        environment: Environment,
        size: Size,
        specs: tuple[Spec, ...] = MIXED,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.environment = environment
        self.size = size
        self.specs = specs
        self.say = say
        environment.prepare()
        self.ledger = Ledger(environment.ledger, "harness")
        self.progress = Progress(environment.ledger)
        self.fleet = Fleet(environment, self.ledger)
        self.observer = Observer(environment)
        self.producers: list[subprocess.Popen[str]] = []
        self.steps = max(1, size.kills)

    def run(self) -> Report:
        self.producers.extend(self._producer(index) for index in range(self.size.producers))
        try:
            self.fleet.start(self.specs)
            try:
                self._hit_and_send()
                self.say("everything is sent; waiting until everything is settled")
                self._wait(lambda: self._quiet(plan.WORK_QUEUES), "settling")
                self._retire()
                self.fleet.start([UNDERTAKER])
                self._wait(lambda: self._quiet((plan.DEAD,)), "reading the dead letters")
                self._retire()
            except NotInTimeError as error:
                self.ledger.write("stalled", seconds=self.progress.idle_seconds, what=str(error))
            self._look_at_the_rest()
        finally:
            for producer in self.producers:
                producer.kill()
                producer.communicate()
            self.fleet.close()
        rules = Rules(messages=self.size.messages, kills=self.size.kills)
        return check(read(self.environment.ledger), rules)

    def _producer(self, index: int) -> subprocess.Popen[str]:
        options = {"seed": self.size.seed, "messages": self.size.messages, "index": index}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        with (self.environment.folder / "logs" / f"producer-{index}.log").open("wb") as log:
            return subprocess.Popen(
                python("producer", *arguments, f"--of={self.size.producers}"),
                env=self.environment.variables(),
                cwd=self.environment.folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
            )

    def _hit_and_send(self) -> None:
        producers = self.producers
        shares = [len(range(index, self.size.messages, len(producers))) for index in range(len(producers))]
        faults = plan.faults(self.size.seed, self.size.kills, self.environment.stall_seconds)
        for step in range(self.steps):
            for producer, share in zip(producers, shares, strict=True):
                wanted = share * (step + 1) // self.steps - share * step // self.steps
                assert producer.stdin is not None
                producer.stdin.write(f"{wanted}\n")
                producer.stdin.flush()
            for fault in (fault for fault in faults if fault.step == step):
                due = (step + fault.after) / self.steps * self.size.messages
                self._wait(partial(self._saw, due), f"step {step}")
                self._wait(partial(self._hit, fault), f"a process for {fault.kind}")
            sent, acked = self.progress.sent, len(self.progress.acked)
            self.say(f"step {step + 1} of {self.steps}: {sent} sent, {acked} acked")
        for producer in producers:
            assert producer.stdin is not None
            producer.stdin.close()
        for producer in producers:
            self._wait(partial(_ended, producer), "the end of a producer")

    def _saw(self, messages: float) -> bool:
        return len(self.progress.seen) >= messages

    def _hit(self, fault: plan.Fault) -> bool:
        """Do it to one that is at work, or to an idle one when nobody works; False when there is none."""
        idle = self.progress.idle_seconds > IDLE
        workers = [worker for worker in self.fleet.workers.values() if self._hittable(worker)]
        if fault.kind == "kill-child":
            return self._hit_child(
                fault, [worker for worker in workers if worker.spec.pool == "prefork"], idle
            )
        candidates = [worker for worker in workers if idle or self.progress.busy(worker.name)]
        if candidates:
            self._hit_worker(fault, candidates[int(fault.draw * len(candidates))])
        return bool(candidates)

    def _hit_child(self, fault: plan.Fault, workers: list[Worker], idle: bool) -> bool:
        children = [
            (worker, pid)
            for worker in workers
            for pid in worker.children()
            if idle or pid in self.progress.busy(worker.name)
        ]
        if children:
            self.fleet.kill_child(*children[int(fault.draw * len(children))])
        return bool(children)

    def _hit_worker(self, fault: plan.Fault, worker: Worker) -> None:
        match fault.kind:
            case "kill-main":
                self.fleet.kill_main(worker)
            case "kill-group":
                self.fleet.kill_group(worker)
            case "term":
                self.fleet.term(worker)
            case "stop":
                self.fleet.stop(worker, fault.seconds)
            case _:
                raise ValueError(f"no such fault: {fault.kind}")

    def _hittable(self, worker: Worker) -> bool:
        return worker.alive and worker.expected is None and not worker.stopped and worker.ready

    def _quiet(self, queues: tuple[str, ...]) -> bool:
        stopped = any(worker.stopped for worker in self.fleet.workers.values())
        return not stopped and self.observer.settled(queues)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait as long as anything moves."""

        def done() -> bool:
            self.fleet.mend()
            self.progress.update()
            if any(producer.poll() for producer in self.producers):
                raise NotInTimeError(f"{what}: a producer has failed, see {self.environment.folder}/logs")
            if self.progress.idle_seconds > STUCK:
                raise NotInTimeError(f"{what}: nothing moves")
            return condition()

        wait_until(done, 3600, what)

    def _retire(self) -> None:
        complaints = self.fleet.retire()
        if complaints:
            raise NotInTimeError("; ".join(complaints))

    def _look_at_the_rest(self) -> None:
        for queue in (*plan.WORK_QUEUES, plan.DEAD):
            left = self.observer.left(queue)
            self.ledger.write(
                "left", queue=queue, waiting=left.waiting, delayed=left.delayed, leased=left.leased
            )


def _ended(process: subprocess.Popen[str]) -> bool:
    return process.poll() is not None
