"""``python -m tests.chaos``: one run or several, a table for each, and a verdict.

The exit status is 1 when a promise was broken; the folder with ledger, logs and broker is then kept.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from .environment import Environment, broker_url
from .report import Result, page, table
from .run import Run, Size


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, help="how many runs, with seeds counting up (3 with --report)")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--broker", default="sqlite", help="sqlite, or a kombu URL")
    parser.add_argument("--stall", type=float, default=3.0, help="seconds without a beat that count as dead")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a clean run too")
    parser.add_argument("--report", type=Path, help="write the figures of all runs to this Markdown file")
    options = parser.parse_args()
    count = options.seeds or (3 if options.report else 1)
    seeds = range(options.seed, options.seed + count)
    results = [one(options, Size(seed, options.messages, options.kills)) for seed in seeds]
    if options.report:
        options.report.write_text(page(results))
    return 0 if all(result.report.clean for result in results) else 1


def one(options: argparse.Namespace, size: Size) -> Result:
    """Run, print, and tidy up."""
    folder = Path(tempfile.mkdtemp(prefix="cfqueue-chaos-"))
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    print(f"seed {size.seed}: {size.messages} messages, {size.kills} kills, in {folder}")
    environment = Environment(folder, broker_url(options.broker, folder), options.stall)
    report = Run(environment, size, say=say).run()
    result = Result(size, options.broker, time.monotonic() - began, report)
    print(table(result))
    if report.clean and not options.keep:
        shutil.rmtree(folder)
    else:
        print(f"ledger and logs: {folder}")
    return result


if __name__ == "__main__":
    sys.exit(main())
