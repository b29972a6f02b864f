"""Running a case: every side in a fresh process, in turn, so that a slow minute hits all of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.model import Case, Sample, Side

ROOT = Path(__file__).resolve().parent.parent
#: Seconds after which a run is given up and rejected.
LONGEST = 150.0
#: Seconds between two runs, for the machine to calm down.
PAUSE = 0.5

Told = Callable[[str, int, Sample, float], None]


def run_case(
    case: Case,
    *,
    quick: bool = False,
    repetitions: int | None = None,
    folder: str | None = None,
    told: Told = lambda *_: None,
) -> dict[str, list[Sample]]:
    """All samples by side, rejected ones too. Every second repetition takes the sides backwards."""
    times = repetitions or (1 if quick else case.repetitions)
    sides = [side for side in case.sides if not (quick and side.only_full)]
    samples: dict[str, list[Sample]] = {side.name: [] for side in sides}
    for repetition in range(times):
        for side in sides if repetition % 2 == 0 else reversed(sides):
            started = time.monotonic()
            sample = run_side(side, quick=quick, folder=folder)
            samples[side.name].append(sample)
            told(side.name, repetition, sample, time.monotonic() - started)
            time.sleep(PAUSE)
    return samples


def run_side(side: Side, *, quick: bool = False, folder: str | None = None) -> Sample:
    """One run in a process group and a folder of its own; both are gone afterwards."""
    with tempfile.TemporaryDirectory(
        prefix="cfqueue-bench-", dir=folder, ignore_cleanup_errors=True
    ) as place:
        answer = Path(place) / "answer.json"
        work = Path(place) / "work"
        work.mkdir()
        parameters = json.dumps(side.arguments(quick))
        command = [sys.executable, "-m", "benchmarks.process", side.run, parameters, str(work), str(answer)]
        trouble = _ended(command)
        if answer.exists():
            return Sample(**json.loads(answer.read_text(encoding="utf-8")))
        return Sample(0, 0, trouble=trouble)


def environment() -> dict[str, str]:
    """Ours, with this repository importable and no configuration from outside."""
    foreign = ("CFQUEUE_", "CELERY_", "PYTHONDONTWRITEBYTECODE")  # the last would have every import compile
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    path = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(path)}


def _ended(command: list[str]) -> str:
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), start_new_session=True)
    try:
        status = process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        return f"given up after {LONGEST:g} s"
    finally:
        # The whole group: a run that failed may have left a worker behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return f"the process ended with status {status} and gave no answer"
