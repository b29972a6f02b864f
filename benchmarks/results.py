"""Results on disk, as a table in the terminal, and as a page of the documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.model import Case, Goal, Measured, Sample

FOLDER = Path(__file__).resolve().parent / "results"


def keep(
    case: Case,
    samples: Mapping[str, Sequence[Sample]],
    machine: Mapping[str, Any],
    command: str,
    *,
    quick: bool,
) -> Path:
    """Write everything that was measured, rejected runs too, to ``results/<case>.json``."""
    folder = FOLDER / "quick" if quick else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "case": case.name,
        "title": case.title,
        "command": command,
        "machine": machine,
        "sides": {side.name: side.arguments(quick) for side in case.sides},
        "samples": {name: [asdict(sample) for sample in found] for name, found in samples.items()},
        "goals": [_goal(goal.measure(samples)) for goal in case.goals],
    }
    path = folder / f"{case.name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def _goal(measured: Measured) -> dict[str, Any]:
    goal = measured.goal
    return {
        "title": goal.title,
        "goal": goal.wanted,
        "measured": measured.value,
        "unit": goal.unit,
        "met": measured.met,
        "subject": {goal.subject: measured.subject},
        "peer": {goal.peer: measured.peer} if goal.peer else None,
        "figure": goal.figure,
        "each": list(measured.each),
    }


def table(case: Case, samples: Mapping[str, Sequence[Sample]]) -> Table:
    """Goal, measured and met, one line per goal; rejected runs below."""
    found = Table(title=case.title, title_justify="left", title_style="bold", caption_justify="left")
    for column in ("What", "Goal", "Measured", "Range", "Subject", "Peer", "Met"):
        found.add_column(column, justify="left" if column == "What" else "right")
    for goal in case.goals:
        found.add_row(*_cells(goal.measure(samples)))
    rejected = _rejected(samples)
    found.caption = "\n".join(f"[red]rejected[/red] {name}: {why}" for name, why in rejected) or None
    return found


def _cells(measured: Measured) -> list[str]:
    goal = measured.goal
    each = sorted(measured.each)
    return [
        goal.title,
        goal.wanted,
        _number(measured.value, goal.unit),
        f"{_short(each[0])} - {_short(each[-1])}" if len(each) > 1 else "",
        _short(measured.subject),
        _short(measured.peer) if goal.peer else "",
        {True: "yes", False: "NO", None: "-" if _is_information(goal) else "not measured"}[measured.met],
    ]


def _is_information(goal: Goal) -> bool:
    return goal.least is None and goal.most is None


def _rejected(samples: Mapping[str, Sequence[Sample]]) -> list[tuple[str, str]]:
    return [(name, s.rejection) for name, found in samples.items() for s in found if not s.complete]


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{_short(value)} {unit}"


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def show(console: Console, case: Case, samples: Mapping[str, Sequence[Sample]]) -> None:
    console.print(table(case, samples))


def report(cases: Sequence[Case]) -> str:
    """The page: every case whose full result is kept, with machine, versions and command."""
    parts = [_HEAD]
    for case in cases:
        path = FOLDER / f"{case.name}.json"
        if path.exists():
            parts.append(_section(json.loads(path.read_text(encoding="utf-8"))))
    return "\n".join(parts)


_HEAD = """# Benchmarks

Each goal is a figure of cfqueue against a peer that was measured in the same run: every case in a fresh
process, the sides in turn, medians of all repetitions. A run that handled more or fewer messages than were
sent has no rate and is listed as rejected. Rates of different machines, or of different runs, say nothing
about each other. `make bench` measures again and writes `benchmarks/results/*.json`; this page is made
from those by `python -m benchmarks --report docs/benchmarks.md`.
"""


def _section(result: Mapping[str, Any]) -> str:
    lines = [
        f"## {result['title']}",
        "",
        "| What | Goal | Measured | Range | Subject | Peer | Met |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for goal in result["goals"]:
        each = sorted(goal["each"])
        spread = f"{_short(each[0])} - {_short(each[-1])}" if len(each) > 1 else ""
        sides = [_side(goal["subject"]), _side(goal["peer"])]
        met = {True: "yes", False: "**no**", None: ""}[goal["met"]]
        measured = _number(goal["measured"], goal["unit"])
        lines.append(
            f"| {goal['title']} | {goal['goal']} | {measured} | {spread} | {' | '.join(sides)} | {met} |"
        )
    for name, samples in result["samples"].items():
        for sample in (Sample(**s) for s in samples):
            if not sample.complete:
                lines += ["", f"Rejected: {name}: {sample.rejection}"]
    machine = result["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    repetitions = max(len(samples) for samples in result["samples"].values())
    conditions = (
        f"{machine['date']}, {repetitions} repetitions, `{result['command']}`. {machine['cores']} cores, "
        f"{machine['processor']}, {machine['system']}, {machine['file_system']}; load average "
        f"{machine['load_average']}, fdatasync of 4 KiB {machine['fdatasync_4k_us']} µs, loopback round trip "
        f"{machine['loopback_us']} µs. Python {machine['python']}, SQLite {machine['sqlite']}, {packages}."
    )
    lines += ["", conditions, ""]
    return "\n".join(lines)


def _side(found: Mapping[str, float] | None) -> str:
    return "" if not found else "; ".join(f"{name}: {_short(value)}" for name, value in found.items())
