"""A graceful stop leaves no trace: what runs finishes and is settled, and nothing runs twice (rule 6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from .environment import Environment, broker_url
from .fleet import GRACEFUL
from .scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.worker, pytest.mark.timeout(90)]

#: How often a worker is stopped while it works.
STOPS = 3
MESSAGES = 200


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_nothing_runs_twice_because_of_a_graceful_stop(tmp_path: Path, pool: str) -> None:
    folder = tmp_path / "run"
    with Scene(Environment(folder, broker_url("sqlite", folder))) as scene:
        for turn in range(STOPS):
            keys = [f"{turn}-{number}.ok" for number in range(MESSAGES)]
            worker = scene.worker("only", pool)
            scene.until_ready(worker)
            scene.send(*keys)
            scene.until_runs(keys[turn * 20], 1)
            scene.fleet.term(worker)
            assert worker.process.wait(GRACEFUL) == 0
        scene.worker("last", pool)
        report = scene.verdict()
    assert not report.violations
