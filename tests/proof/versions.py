"""The matrix of versions: the suite in fresh environments with other Pythons, Celerys and SQLAlchemys.

python -m tests.proof.versions [--report docs/versions.md]   (Pythons that are not installed are named, not passed)
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: (Python, Celery, SQLAlchemy): the newest of all, each older one with the newest others, the oldest of all.
COMBINATIONS = [
    ("3.11", "5.7.*", "2.1.*"),
    ("3.12", "5.7.*", "2.1.*"),
    ("3.13", "5.7.*", "2.1.*"),
    ("3.11", "5.6.*", "2.1.*"),
    ("3.11", "5.7.*", "2.0.*"),
    ("3.11", "5.5.*", "2.0.*"),
]
#: Everything that needs no worker, and the consumer's conformance suite with real workers on every pool.
WITHOUT_WORKERS = ["tests", "--ignore=tests/docs", "--ignore=tests/proof", "-m", "not worker and not chaos"]
WITH_WORKERS = ["tests/brokers/test_consumer.py", "tests/worker/test_crashes.py"]


@dataclass(frozen=True)
class Run:
    """One combination and how it ended."""

    python: str
    celery: str
    sqlalchemy: str
    outcome: str
    passed: bool


def interpreter(version: str) -> str | None:
    """The path of that Python, or None when it is not on this machine."""
    if sys.version_info[:2] == tuple(int(part) for part in version.split(".")):
        return sys.executable
    found = shutil.which(f"python{version}")
    if found is None:
        return None
    # A shim of a version manager may stand for an interpreter that is not chosen.
    works = subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0
    return found if works else None


def run(python: str, celery: str, sqlalchemy: str) -> Run:
    executable = interpreter(python)
    if executable is None:
        return Run(python, celery, sqlalchemy, "this Python is not installed here", passed=True)
    with tempfile.TemporaryDirectory() as folder:
        own = f"{folder}/bin/python"
        subprocess.run([executable, "-m", "venv", folder], check=True)
        subprocess.run([own, "-m", "pip", "install", "-q", "--upgrade", "pip>=25.1"], check=True)
        subprocess.run([own, "-m", "pip", "install", "-q", "-e", "."], cwd=ROOT, check=True)
        subprocess.run([own, "-m", "pip", "install", "-q", "--group", "test"], cwd=ROOT, check=True)
        subprocess.run(
            [own, "-m", "pip", "install", "-q", f"celery=={celery}", f"SQLAlchemy=={sqlalchemy}"], check=True
        )
        outcomes = [_suite(own, tests) for tests in (WITHOUT_WORKERS, WITH_WORKERS)]
    return Run(
        python,
        celery,
        sqlalchemy,
        "; with workers: ".join(text for text, _ in outcomes),
        passed=all(passed for _, passed in outcomes),
    )


def _suite(python: str, tests: list[str]) -> tuple[str, bool]:
    done = subprocess.run(
        [python, "-m", "pytest", *tests, "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    last = next(
        (line for line in reversed(done.stdout.splitlines()) if re.search(r"passed|failed|error", line)), ""
    )
    if done.returncode:
        print(done.stdout[-4_000:], file=sys.stderr)
    return last.strip("= "), done.returncode == 0


def page(runs: list[Run]) -> str:
    return "\n".join(
        [
            "# Versions",
            "",
            (
                f"`python -m tests.proof.versions` on {time.strftime('%Y-%m-%d', time.gmtime())}: what needs no "
                "worker, and the consumer and crash suites with real workers on every pool."
            ),
            "",
            "| Python | Celery | SQLAlchemy | outcome |",
            "|---|---|---|---|",
            *(f"| {r.python} | {r.celery} | {r.sqlalchemy} | {r.outcome} |" for r in runs),
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    runs = []
    for combination in COMBINATIONS:
        runs.append(run(*combination))
        print(runs[-1], flush=True)
    text = page(runs)
    print(text)
    if options.report:
        options.report.write_text(text)
    return 0 if all(one.passed for one in runs) else 1


if __name__ == "__main__":
    raise SystemExit(main())
