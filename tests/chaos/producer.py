"""A process that sends its share of the plan. Each line on its input is a number: send that many more.

It ends when its input ends, so it never outlives the run.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from celery import Celery

from cfqueue import CFQueue
from cfqueue.errors import BrokerError, SendUncertain

from . import plan
from .environment import Environment
from .ledger import Ledger, checksum


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--messages", type=int, required=True, help="of the whole plan")
    parser.add_argument("--index", type=int, required=True, help="which producer this is")
    parser.add_argument("--of", type=int, required=True, help="how many producers there are")
    options = parser.parse_args()
    environment = Environment.read(os.environ)
    share = plan.messages(options.seed, options.messages)[options.index :: options.of]
    producer = Producer(environment, options.seed + options.index)
    place = 0
    for line in sys.stdin:
        wanted = int(line)
        producer.send(share[place : place + wanted])
        place += wanted
        print(place, flush=True)


class Producer:
    """Sends planned messages and writes down what it was told."""

    def __init__(self, environment: Environment, seed: int) -> None:
        self._queues = CFQueue(Celery("chaos-producer", broker=environment.broker_url)).queues
        self._ledger = Ledger(environment.ledger, "producer")
        self._seed = seed

    def send(self, messages: list[plan.Planned]) -> None:
        for group in plan.send_calls(self._seed, messages):
            self._send(group)

    def _send(self, group: list[plan.Planned]) -> None:
        keys = [message.key for message in group]
        self._ledger.write(
            "sending",
            keys=keys,
            sums=[checksum(message.body) for message in group],
            delays=[message.delay for message in group],
            queue=group[0].queue,
        )
        outcome, error, ids = "OK", "", None
        try:
            ids = list(self._call(group).ids)
        except SendUncertain as caught:
            outcome, error = "UNCERTAIN", repr(caught)
        except BrokerError as caught:
            outcome, error = "ERROR", repr(caught)
        self._ledger.write("sent", keys=keys, outcome=outcome, error=error, ids=ids)

    def _call(self, group: list[plan.Planned]) -> Any:
        queue = self._queues[group[0].queue]
        if len(group) == 1:
            one = group[0]
            return queue.send(one.body, delay_seconds=one.delay, priority=one.priority)
        return queue.send_batch(
            [{"body": m.body, "delay_seconds": m.delay, "priority": m.priority} for m in group]
        )


if __name__ == "__main__":
    main()
