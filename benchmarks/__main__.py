"""``python -m benchmarks``: run the cases, keep the results, print goal, measured and met."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from benchmarks import broker, bulk_insert, depth, drain, imports, latency, machine, resources, results
from benchmarks.model import Case, Sample
from benchmarks.running import run_case

CASES: list[Case] = [
    broker.CASE,
    drain.CASE,
    bulk_insert.CASE,
    latency.CASE,
    depth.CASE,
    resources.MEMORY,
    resources.IDLE,
    imports.CASE,
]


def main(arguments: list[str] | None = None) -> int:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--case", action="append", choices=names, help="only this case; may be repeated")
    parser.add_argument("--quick", action="store_true", help="small and once: shows that nothing broke")
    parser.add_argument("--repetitions", type=int, help="runs of every side (default: what the case says)")
    parser.add_argument("--folder", help="where databases are made (default: the system's temporary folder)")
    parser.add_argument("--report", type=Path, help="write the page of all kept results to this file")
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    console = Console(width=None if sys.stdout.isatty() else 160)
    chosen = [case for case in CASES if not options.case or case.name in options.case]
    command = " ".join(["python -m benchmarks", *_without_paths(given)])
    for case in chosen:
        found = machine.describe(options.folder)
        if found["file_system"] == "tmpfs":
            console.print("[red]The folder is in memory: commits cost nothing there. Use --folder.[/red]")

        def told(side: str, repetition: int, sample: Sample, seconds: float, case: Case = case) -> None:
            outcome = "done" if sample.complete else f"[red]rejected[/red]: {sample.rejection}"
            console.print(
                f"{case.name}: {side}, run {repetition + 1}, {seconds:.1f} s: {outcome}", style="dim"
            )

        samples = run_case(
            case, quick=options.quick, repetitions=options.repetitions, folder=options.folder, told=told
        )
        results.keep(case, samples, found, command, quick=options.quick)
        results.show(console, case, samples)
    if options.report:
        options.report.write_text(results.report(CASES), encoding="utf-8")
        console.print(f"Wrote {options.report}")
    return 0


def _without_paths(given: list[str]) -> list[str]:
    """The arguments as they can be published: a scratch folder is nobody's business."""
    kept = []
    for position, argument in enumerate(given):
        if argument == "--folder" or (position and given[position - 1] == "--folder"):
            continue
        if not argument.startswith("--folder="):
            kept.append(argument)
    return kept


if __name__ == "__main__":
    sys.exit(main())
