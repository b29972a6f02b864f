"""The verdict as text: a table for the terminal, and a page with several seeds for the documentation."""

from __future__ import annotations

import os
import platform
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime

import celery

import cfqueue

from .checker import Report
from .run import Size

#: Violations shown for each rule; the rest is counted.
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Result:
    """One finished run."""

    size: Size
    broker: str
    seconds: float
    report: Report

    @property
    def verdict(self) -> str:
        figures = self.report.figures
        text = f"{figures['lost']} lost, {figures['phantom']} phantom (seed {self.size.seed}, {self.seconds:.0f} s)"
        return text if self.report.clean else f"{text}: {len(self.report.violations)} violations"


def table(result: Result) -> str:
    """What was counted, what was broken, and the verdict in the last line."""
    lines = [f"{count:>10,}  {name}" for name, count in result.report.figures.items()]
    shown: dict[str, int] = {}
    for violation in result.report.violations:
        shown[violation.rule] = shown.get(violation.rule, 0) + 1
        if shown[violation.rule] <= SHOWN:
            lines.append(f"BROKEN {violation}")
    lines += [f"BROKEN {rule}: and {n - SHOWN} more" for rule, n in shown.items() if n > SHOWN]
    return "\n".join([*lines, result.verdict])


#: What the rows of the page mean.
WORDS = (
    "- *kill-main*, *kill-group*, *kill-child*: SIGKILL of a worker's main process, of it with its pool, of one",
    "  pool process. *term*: a graceful stop. *stop*: SIGSTOP for some seconds, then SIGCONT; some longer than a",
    "  lease lasts.",
    "- *died by a handler*: a process ended by a handler that exits, kills its process, hangs or eats memory.",
    "- *charges*: attempts that a crash has cost a message. A *killer* is a message whose handler ends its",
    "  process; an *innocent* is any other: it was alone in its process when that was killed from outside.",
    "- *duplicates*: messages acked more than once. A process that dies between running a handler and making its",
    "  outcome durable cannot avoid them; the checker allows them inside the window of a fault, nowhere else.",
    "- *phantom*: run but never sent.",
)


def page(results: list[Result]) -> str:
    """The runs side by side, as Markdown."""
    size = results[0].size
    names = dict.fromkeys(name for result in results for name in result.report.figures)
    rows = [
        f"| {name} | " + " | ".join(f"{result.report.figures.get(name, 0):,}" for result in results) + " |"
        for name in names
    ]
    what = (
        f"Written by `make proof` on {datetime.now(UTC):%Y-%m-%d}: {size.messages:,} messages under {size.kills} "
        # The scheme alone: a URL may carry a password.
        f"kills for each seed, on the {results[0].broker.partition(':')[0]} broker, with one prefork, one threads "
        "and one solo worker. What is counted and which promises are checked stands in "
        "`tests/chaos/checker.py`; `make chaos SEED=…` repeats one of them."
    )
    where = (
        f"cfqueue {cfqueue.__version__}, Celery {celery.__version__}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, {platform.system()}, {os.cpu_count()} cores."
    )
    return "\n".join(
        [
            "# Proof of durability",
            "",
            what,
            "",
            where,
            "",
            "| | " + " | ".join(f"seed {result.size.seed}" for result in results) + " |",
            "|---|" + "---:|" * len(results),
            *rows,
            "| violations | " + " | ".join(str(len(result.report.violations)) for result in results) + " |",
            "| seconds | " + " | ".join(f"{result.seconds:.0f}" for result in results) + " |",
            "",
            *WORDS,
            "",
        ]
    )
