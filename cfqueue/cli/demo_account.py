"""The demo's account: what was sent against what became of it, and whether it adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfqueue.cli.demo_results import CheckedFile, DeadLetter, Figures


@dataclass(frozen=True, slots=True)
class Sending:
    """What the producer did."""

    messages: int
    calls: int
    seconds: float
    #: Installed packages whose files were all sent, and how many there are.
    packages: int
    packages_installed: int

    @property
    def rate(self) -> float:
        """Messages in a second."""
        return self.messages / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Expectation:
    """What must become of the three files that were damaged on purpose (message numbers)."""

    changed: int
    removed: int
    late: int


@dataclass(frozen=True, slots=True)
class Account:
    """Everything that the demo reports. Messages are numbered 1 to ``sending.messages``."""

    sending: Sending
    figures: Figures
    intact: frozenset[int]
    dead_letters: Sequence[DeadLetter]
    #: What the deliveries of each dead letter found, by message number.
    findings: Mapping[int, Sequence[str]]
    recovered: Sequence[CheckedFile]
    expectation: Expectation
    #: Messages still in the queues; None where the broker cannot tell.
    waiting: int | None
    #: Messages checked in a second, over all full batches; 0 when no batch was full.
    speed: float
    #: From the first command to the last settled message.
    seconds: float
    folder: Path

    def reasons(self) -> dict[str, int]:
        """Dead letters by reason."""
        return dict(Counter(letter.reason for letter in self.dead_letters))

    def problems(self) -> list[str]:
        """Sentences that say where the account does not add up; none when all is well."""
        sent = set(range(1, self.sending.messages + 1))
        dead = {letter.number for letter in self.dead_letters}
        found = [
            (sent - self.intact - dead, "neither in the results nor dead-lettered"),
            (self.intact & dead, "both in the results and dead-lettered"),
            ((self.intact | dead) - sent, "not sent by the demo at all"),
        ]
        problems = [f"{_messages(numbers)} {what}." for numbers, what in found if numbers]
        if self.waiting:
            problems.append(f"{self.waiting} messages are still in the queues.")
        for number, what in ((self.expectation.changed, "changed"), (self.expectation.removed, "removed")):
            if number not in dead:
                problems.append(f"The {what} file (message {number}) was not dead-lettered.")
        if self.expectation.late not in {file.number for file in self.recovered}:
            problems.append(
                f"The file that appeared late (message {self.expectation.late}) was not found on a retry."
            )
        return problems

    def to_dict(self) -> dict[str, Any]:
        """Return the account for ``--json``."""
        return {
            "ok": not self.problems(),
            "problems": self.problems(),
            "packages": self.sending.packages,
            "packages_installed": self.sending.packages_installed,
            "sent": self.sending.messages,
            "send_batch_calls": self.sending.calls,
            "sent_per_second": round(self.sending.rate),
            "batches": self.figures.batches,
            "mean_batch_size": round(self.figures.mean_batch_size, 1),
            "pool_processes": self.figures.processes,
            "delivered": self.figures.deliveries,
            "retries": self.figures.retries,
            "retried_messages": self.figures.retried_messages,
            "recovered": [{"package": file.distribution, "file": file.path} for file in self.recovered],
            "intact": len(self.intact),
            "dead_lettered": len(self.dead_letters),
            "dead_letter_reasons": self.reasons(),
            "dead_letters": [
                {
                    "package": letter.distribution,
                    "file": letter.path,
                    "reason": letter.reason,
                    "deliveries": letter.deliveries,
                    "findings": list(self.findings.get(letter.number, ())),
                }
                for letter in self.dead_letters
            ],
            "messages_per_second": round(self.speed),
            "seconds": round(self.seconds, 2),
            "folder": str(self.folder),
            "results": str(self.folder / "results.db"),
        }


def _messages(numbers: Set[int]) -> str:
    shown = ", ".join(str(number) for number in sorted(numbers)[:5])
    more = ", …" if len(numbers) > 5 else ""
    if len(numbers) == 1:
        return f"1 message ({shown}) is"
    return f"{len(numbers)} messages ({shown}{more}) are"
