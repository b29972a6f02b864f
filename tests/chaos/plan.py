"""What a seed means: which messages are sent, what their handlers do, and when which process is hit. Pure.

A message carries its own role in its body, so that a worker needs nothing but the message.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAIN = "chaos"
#: Messages that hang until the hard time limit; only prefork workers can serve it.
HANG = "chaos-hang"
DEAD = "chaos-dlq"
WORK_QUEUES = (MAIN, HANG)

MAX_BATCH_SIZE = 10
#: ``max_retries`` of each queue: a hang costs a time limit each, so its queue allows fewer.
MAX_RETRIES = {MAIN: 3, HANG: 2}
#: Wall-clock seconds after which the prefork pool kills a handler of the queue HANG.
TIME_LIMIT = 2

#: Roles, and their shares of 10,000 messages. ``ok`` is the rest.
SHARES = {
    "explicit": 300,  # acks by itself
    "slow": 30,  # takes a while, so that kills find it running
    "retry": 200,  # asks for a retry at once at its first attempt
    "later": 100,  # asks for a retry with a delay of a second
    "raise": 60,  # raises at its first attempt: its batch is retried but for the explicit acks
    "memory": 10,  # raises MemoryError, likewise
    "fail": 50,  # asks for a retry at every attempt
    "exit": 5,  # os._exit at its first attempt
}
#: Roles that kill or hang their process, at the first attempt or at every one.
KILLERS = frozenset({"exit", "poison", "hang", "hang-once"})
#: Not drawn: messages of the targeted scenarios, whose handlers wait for a gate (a file) to be opened.
#: ``gate`` then acks; ``gate-retry`` asks for a retry at its first attempt, and acks afterwards.
GATES = frozenset({"gate", "gate-retry"})
#: The roles that may end in a dead-letter queue, and the reason that belongs there.
DEAD_LETTER_REASONS = {"fail": "retries_exhausted", "poison": "crashed", "hang": "crashed"}


@dataclass(frozen=True, slots=True)
class Planned:
    """One message to send."""

    key: str
    queue: str
    role: str
    delay: int
    priority: int

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body; the padding makes sizes differ."""
        return {"key": self.key, "role": self.role, "pad": "x" * (sum(self.key.encode()) % 97)}


def role_of(key: str) -> str:
    """The role is part of the key, so that an account can be judged without the plan."""
    return key.rpartition(".")[2]


def messages(seed: int, count: int) -> list[Planned]:
    """The messages of a seed: always one poison message, one that hangs for ever, one that hangs once."""
    draw = random.Random(f"messages {seed}")
    roles, weights = [*SHARES, "ok"], [*SHARES.values(), 10_000 - sum(SHARES.values())]
    chosen = draw.choices(roles, weights, k=count)
    # In the first half: they take several time limits and restarts to settle.
    named = ("poison", "hang", "hang-once", "exit")
    for place, role in zip(draw.sample(range(count // 2), k=len(named)), named, strict=True):
        chosen[place] = role
    return [
        Planned(
            key=f"{seed}-{number}.{role}",
            queue=HANG if role.startswith("hang") or (role == "ok" and number % 50 == 0) else MAIN,
            role=role,
            delay=draw.choice((1, 2)) if draw.random() < 0.02 else 0,
            priority=draw.choice((3, 9)) if draw.random() < 0.05 else 0,
        )
        for number, role in enumerate(chosen)
    ]


def send_calls(seed: int, share: list[Planned]) -> Iterator[list[Planned]]:
    """How a producer groups its messages: single sends and batches up to 50, each for one queue."""
    draw = random.Random(f"calls {seed}")
    place = 0
    while place < len(share):
        size = draw.choice((1, 1, 1, 10, 50))
        group: list[Planned] = []
        while place < len(share) and len(group) < size:
            if group and share[place].queue != group[0].queue:
                break
            group.append(share[place])
            place += 1
        yield group


@dataclass(frozen=True, slots=True)
class Fault:
    """Hit one process when ``after`` (0..1) of a step's messages have started to run."""

    step: int
    kind: str  # kill-main, kill-group, kill-child, term, stop
    after: float
    draw: float  # 0..1: chooses among the workers and children alive at that moment
    seconds: float = 0.0  # how long a stopped worker stays stopped


#: Kinds that count as kills. A group is a worker with all its children (a container out of memory).
KILLS = ("kill-child", "kill-main", "kill-group")


def faults(seed: int, kills: int, stall_seconds: float) -> list[Fault]:
    """One kill per step; every sixth step also a graceful stop or a SIGSTOP (every other one long)."""
    draw = random.Random(f"faults {seed}")
    found = []
    for step in range(kills):
        kind = draw.choices(KILLS, (5, 3, 2))[0]
        found.append(Fault(step, kind, draw.uniform(0.05, 0.9), draw.random()))
        if step % 6 == 2:
            found.append(Fault(step, "term", draw.uniform(0.05, 0.9), draw.random()))
        if step % 6 == 4:
            long = step % 12 == 4
            seconds = stall_seconds + 2.0 if long else draw.uniform(0.3, 1.0)
            found.append(Fault(step, "stop", draw.uniform(0.05, 0.9), draw.random(), seconds))
    return sorted(found, key=lambda fault: (fault.step, fault.after))
