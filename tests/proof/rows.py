"""A million messages in one file: all of them come out, each once, in order, and the file is sound.

python -m tests.proof.rows [--rows 1000000] [--report docs/rows.md]
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cfqueue import clock
from cfqueue.transport.operations import Ack, Claim, Leased, Put, Row
from cfqueue.transport.store import Store

BATCH = 100
FILL = 1_000


@dataclass(frozen=True)
class Answer:
    """One thing that was checked."""

    what: str
    expected: object
    found: object

    @property
    def holds(self) -> bool:
        return self.expected == self.found


def fill(store: Store, rows: int, due_ms: int) -> float:
    started = time.perf_counter()
    for first in range(0, rows, FILL):
        store.submit([Put([_row(number, due_ms) for number in range(first, min(rows, first + FILL))])])
    return time.perf_counter() - started


def _row(number: int, due_ms: int) -> Row:
    body = f'[[{number}], {{}}, {{"callbacks":null,"errbacks":null,"chain":null,"chord":null}}]'
    return Row("rows", "{}", None, body, len(str(number)), 0, due_ms, due_ms, None, f"{number:032x}")


def drain(store: Store, rows: int) -> tuple[list[str], float]:
    """Claim and ack in hundreds, as a worker does, until nothing is left."""
    owner = store.owner().id
    seen: list[str] = []
    acked: list[tuple[int, int]] = []
    started = time.perf_counter()
    while len(seen) <= rows:
        operations = [Claim(owner, "rows", BATCH, 0, clock.now_ms(), f"batch-{len(seen)}")]
        results = store.submit([Ack(acked), *operations] if acked else operations)
        taken: list[Leased] = results[-1]
        if not taken:
            break
        seen.extend(leased.message_id for leased in taken)
        acked = [leased.lease for leased in taken]
    return seen, time.perf_counter() - started


def check(rows: int) -> tuple[list[Answer], dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "rows.db")
        store = Store.at(path)
        filled = fill(store, rows, clock.now_ms())
        answers = [Answer("backlog after filling", rows, store.backlog("rows").count)]
        seen, drained = drain(store, rows)
        answers += [
            Answer("messages that came out", rows, len(seen)),
            Answer("different ids among them", rows, len(set(seen))),
            Answer("in the order of sending", True, seen == sorted(seen)),
            Answer("backlog after draining", 0, store.backlog("rows").count),
            Answer("in flight after draining", 0, store.backlog("rows").in_flight),
        ]
        with sqlite3.connect(path) as connection:
            answers.append(
                Answer("integrity_check", "ok", connection.execute("PRAGMA integrity_check").fetchone()[0])
            )
        connection.close()
        store.close()
    return answers, {"filled, rows/s": rows / filled, "claimed and acked, rows/s": rows / drained}


def page(rows: int, answers: list[Answer], rates: dict[str, float]) -> str:
    lines = [
        "# A million rows",
        "",
        f"`python -m tests.proof.rows --rows {rows}` on {time.strftime('%Y-%m-%d', time.gmtime())}.",
        "Rates depend on the machine; what counts is that every line below holds.",
        "",
        "| what | expected | found | holds |",
        "|---|---|---|---|",
        *(f"| {a.what} | {a.expected} | {a.found} | {'yes' if a.holds else '**no**'} |" for a in answers),
        "",
        *(f"- {name}: {rate:,.0f}" for name, rate in rates.items()),
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    answers, rates = check(options.rows)
    text = page(options.rows, answers, rates)
    print(text)
    if options.report:
        options.report.write_text(text)
    return 0 if all(answer.holds for answer in answers) else 1


if __name__ == "__main__":
    raise SystemExit(main())
