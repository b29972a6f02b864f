"""What ``import cfqueue``, ``CFQueue(app)`` and one handler add to what Celery itself costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks.model import Case, Goal, Sample, Side
from benchmarks.running import environment

_CELERY = """
import time
started = time.perf_counter()
from celery import Celery
app = Celery("imports", broker="memory://")

@app.task
def task(body):
    pass
"""
_QUEUES = """
from cfqueue import CFQueue
cf = CFQueue(app)

@cf.queue("jobs")
def jobs(batch):
    pass
"""
_TELL = """
seconds = time.perf_counter() - started
import sys
print(seconds, *sorted({"sqlalchemy", "flask"} & set(sys.modules)))
"""


def program(folder: Path, with_queues: bool, times: int) -> Sample:
    """The median of several interpreters, after one that may have to compile."""
    text = _CELERY + (_QUEUES if with_queues else "") + _TELL
    seconds, loaded = [], set()
    for _ in range(times + 1):
        answer = subprocess.run(
            [sys.executable, "-c", text],
            cwd=folder,
            env=environment(),
            capture_output=True,
            check=True,
            text=True,
        )
        taken, *modules = answer.stdout.split()
        seconds.append(float(taken))
        loaded.update(modules)
    trouble = f"loaded {', '.join(sorted(loaded))}" if loaded else ""
    return Sample(times, len(seconds) - 1, {"ms": median(seconds[1:]) * 1e3}, trouble)


CASE = Case(
    "imports",
    "Import, CFQueue(app) and one handler",
    [
        Side("Celery and a task", "benchmarks.imports:program", {"with_queues": False, "times": 5}, {"times": 3}),
        Side("the same and a queue handler", "benchmarks.imports:program", {"with_queues": True, "times": 5},
             {"times": 3}),
    ],
    [
        Goal("added to Celery", "the same and a queue handler", "ms", "Celery and a task", ratio=False,
             most=40, unit="ms"),
    ],
    repetitions=5,
)  # fmt: skip
