"""``python -m tests.chaos``: one run, a table, and a verdict. Exit status 1 when a promise was broken."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from .checker import Report
from .environment import Environment
from .run import Run, Size

#: Violations shown for each rule; the rest is counted.
SHOWN = 10


def broker_url(broker: str, folder: Path) -> str:
    """Where the run's messages live: a broker family, or a kombu URL."""
    if broker == "sqlite":
        return f"cfqueue+sqlite:///{folder / 'broker.db'}"
    if "://" in broker:
        return broker
    raise SystemExit(f"--broker {broker}: give sqlite, or a URL.")


def show(report: Report, seed: int, seconds: float) -> str:
    """The table, the violations if there are any, and the verdict in one line."""
    lines = [f"{count:>10,}  {name}" for name, count in report.figures.items()]
    shown: dict[str, int] = {}
    for violation in report.violations:
        shown[violation.rule] = shown.get(violation.rule, 0) + 1
        if shown[violation.rule] <= SHOWN:
            lines.append(f"BROKEN {violation}")
    lines += [f"BROKEN {rule}: and {n - SHOWN} more" for rule, n in shown.items() if n > SHOWN]
    lost, phantom = report.figures["lost"], report.figures["phantom"]
    verdict = f"{lost} lost, {phantom} phantom (seed {seed}, {seconds:.0f} s)"
    return "\n".join([*lines, verdict if report.clean else f"{verdict}: {len(report.violations)} violations"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--broker", default="sqlite", help="sqlite, or a kombu URL")
    parser.add_argument("--stall", type=float, default=3.0, help="seconds without a beat that count as dead")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a clean run too")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cfqueue-chaos-"))
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    print(f"seed {options.seed}: {options.messages} messages, {options.kills} kills, in {folder}")
    environment = Environment(folder, broker_url(options.broker, folder), options.stall)
    report = Run(environment, Size(options.seed, options.messages, options.kills), say=say).run()
    print(show(report, options.seed, time.monotonic() - began))
    if report.clean and not options.keep:
        shutil.rmtree(folder)
    else:
        print(f"ledger and logs: {folder}")
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
