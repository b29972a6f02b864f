"""The Celery application of a chaos run: its handlers write down what they see, then misbehave as told.

Started as ``celery -A tests.chaos.app worker``; everything it needs to know comes in the environment.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from typing import Any

from celery import Celery

from cfqueue import CFQueue

from . import plan
from .environment import Environment
from .ledger import Ledger, checksum

environment = Environment.read(os.environ)
app = Celery("chaos", broker=environment.broker_url)
cf = CFQueue(app)
ledger = Ledger(environment.ledger, "worker")
#: Numbers the handler calls of this process; with the pid they are unique in a run.
_calls = itertools.count(1)

#: Seconds that each message takes, so that a kill finds batches half done.
WORK = 0.001
#: Seconds that a message of the role ``slow`` takes.
SLOW = 0.3
#: Seconds between looks at a gate.
GATE_POLL = 0.02


class MisbehaviourError(Exception):
    """What a message of the role ``raise`` raises."""


@cf.queue(
    plan.MAIN,
    max_batch_size=plan.MAX_BATCH_SIZE,
    max_batch_timeout=0,
    max_retries=plan.MAX_RETRIES[plan.MAIN],
    dead_letter_queue=plan.DEAD,
)
def work(batch: Any) -> None:
    Call(batch).run()


@cf.queue(
    plan.HANG,
    max_batch_size=plan.MAX_BATCH_SIZE,
    max_batch_timeout=1,
    max_retries=plan.MAX_RETRIES[plan.HANG],
    dead_letter_queue=plan.DEAD,
    time_limit=plan.TIME_LIMIT,
)
def work_that_may_hang(batch: Any) -> None:
    Call(batch).run()


@cf.queue(plan.DEAD, max_batch_size=100, max_batch_timeout=0, dead_letter_queue=None)
def bury(batch: Any) -> None:
    """Copies dead letters into the ledger; only the last worker of a run serves this queue."""
    for message in batch:
        headers = {name: value for name, value in message.headers.items() if name.startswith("cfq-")}
        ledger.write(
            "dead",
            key=message.body["key"],
            id=message.id,
            sum=checksum(message.body),
            reason=headers.get("cfq-reason"),
            headers=headers,
        )


class Call:
    """One call of a handler: what is written down, and in which order."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch
        self.name = f"{os.getpid()}-{next(_calls)}"
        self.outcomes: dict[str, tuple[str, int]] = {}

    def run(self) -> None:
        ledger.write(
            "start",
            run=self.name,
            worker=environment.worker,
            queue=self.batch.queue,
            messages=[[m.body["key"], m.id, m.attempts, checksum(m.body)] for m in self.batch],
        )
        try:
            for message in self.batch:
                self.one(message)
        except BaseException:
            self.end("retry")
            raise
        self.end("ack")

    def end(self, undecided: str) -> None:
        """Write down the outcome of each message; ``undecided`` is that of those nobody decided."""
        outcomes = [
            [message.body["key"], *self.outcomes.get(message.body["key"], (undecided, 0))]
            for message in self.batch
        ]
        ledger.write("end", run=self.name, outcomes=outcomes)

    def one(self, message: Any) -> None:
        role, attempt, key = message.body["role"], message.attempts, message.body["key"]
        time.sleep(WORK)
        if role == "explicit":
            message.ack()
            self.outcomes[key] = ("ack", 0)
        elif role == "slow":
            time.sleep(SLOW)
        elif role == "fail" or (role == "retry" and attempt == 1):
            self.retry(message, 0)
        elif role == "later" and attempt == 1:
            self.retry(message, 1)
        elif role in ("raise", "memory") and attempt == 1:
            self.throw(message, MemoryError if role == "memory" else MisbehaviourError)
        elif role in plan.GATES:
            self.wait_at_gate(message)
        elif role in plan.KILLERS:
            self.kill(message)

    def retry(self, message: Any, delay: int) -> None:
        message.retry(delay_seconds=delay)
        self.outcomes[message.body["key"]] = ("retry", delay)

    def throw(self, message: Any, error: type[BaseException]) -> None:
        """Raise, unless a message of the batch was retried before: innocents must not be exhausted."""
        if any(other.attempts > 1 for other in self.batch):
            self.retry(message, 0)
            return
        raise error(f"{message.body['key']} was asked to raise")

    def wait_at_gate(self, message: Any) -> None:
        """Wait until the gate of this message, or of this message in this worker, is opened."""
        key = message.body["key"]
        gates = (environment.gate(key), environment.gate(f"{key}@{environment.worker}"))
        while not any(gate.exists() for gate in gates):
            time.sleep(GATE_POLL)
        if message.body["role"] == "gate-retry" and message.attempts == 1:
            self.retry(message, 0)

    def kill(self, message: Any) -> None:
        role = message.body["role"]
        if role in ("exit", "hang-once") and message.attempts > 1:
            return
        ledger.write("dying", run=self.name, worker=environment.worker, key=message.body["key"], how=role)
        if role == "exit":
            os._exit(1)
        if role == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        while True:
            time.sleep(60)  # the hard time limit ends this process


if environment.bug:
    from . import bugs

    bugs.install(environment.bug, environment)
