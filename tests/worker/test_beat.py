"""Celery's embedded Beat: a child that closes the descriptors it inherited, then sends."""

from __future__ import annotations

from typing import Any

import pytest

from .harness import eventually

pytestmark = pytest.mark.worker

SOURCE = """
cf = CFQueue(app)

@cf.queue("ticks", max_batch_timeout=0)
def ticks(batch):
    run(batch)

@app.task
def plain():
    record("plain")

app.conf.beat_schedule = {
    "ticks": {"task": "cfqueue.queue.ticks", "schedule": 1.0, "args": ["tick"]},
    "plain": {"task": "project.plain", "schedule": 1.0},
}
"""


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_with_beat_delivers_what_beat_sends(make_project: Any, pool: str) -> None:
    project = make_project(SOURCE)
    schedule = str(project.folder / "schedule")
    with project.worker(pool, arguments=("-B", "-s", schedule)) as worker:
        eventually(lambda: len(project.records("start", queue="ticks")) >= 3)
        eventually(lambda: len(project.records("plain")) >= 3)
        beats = sorted(run["at"] for run in project.records("start", queue="ticks"))
        assert beats[2] - beats[0] < 10, "a write lock was waited for"
        project.send("ticks", "by hand")
        eventually(
            lambda: any(m["body"] == "by hand" for r in project.records("start") for m in r["messages"])
        )
        assert worker.stop() == 0
    assert "Traceback" not in worker.log()
