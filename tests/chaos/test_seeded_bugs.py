"""The proof of the proof: each seeded bug is found, and the same scenario without it is clean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .checker import Report
from .environment import Environment, broker_url
from .fleet import wait_until
from .scene import PATIENCE, Scene

#: Seconds without a beat after which a worker of these scenarios counts as stopped.
STALL = 1.0

pytestmark = [pytest.mark.chaos, pytest.mark.worker, pytest.mark.timeout(90)]


def a_worker_dies_inside_a_batch(scene: Scene) -> None:
    keys = [f"{number}.gate" for number in range(5)]
    scene.send(*keys)
    first = scene.worker("first")
    scene.until_runs(keys[0], 1)
    scene.fleet.kill_group(first)
    for key in keys:
        scene.open(key)
    scene.worker("second")


def a_handler_raises(scene: Scene) -> None:
    scene.send("1.raise")
    scene.worker("only")
    scene.until_runs("1.raise", 1)


def a_batch_takes_longer_than_a_lease(scene: Scene) -> None:
    scene.send("1.gate")
    scene.worker("first")
    scene.until_runs("1.gate", 1)
    scene.worker("second")
    # The second worker needs two seconds to start, then a stall limit to believe the first one stopped.
    scene.gives_time_for_run("1.gate", 2, 2 + 4 * STALL)
    scene.open("1.gate")


def a_stopped_worker_settles_late(scene: Scene) -> None:
    scene.send("1.gate-retry")
    first = scene.worker("first")
    scene.until_runs("1.gate-retry", 1)
    scene.stop(first)
    scene.worker("second")
    scene.until_runs("1.gate-retry", 2)
    scene.open(f"1.gate-retry@{first.name}")
    scene.fleet.cont(first)
    wait_until(lambda: scene.ended(first), PATIENCE, "the late end of the first run")
    scene.gives_time_for_run("1.gate-retry", 3, 2.0)
    scene.open("1.gate-retry")


def a_worker_dies_while_it_settles_a_retry(scene: Scene) -> None:
    scene.send("1.retry")
    first = scene.worker("first")
    removed = scene.environment.gate("removed")
    wait_until(
        lambda: removed.exists() or scene.runs("1.retry") == 2, PATIENCE, "the settlement of the retry"
    )
    scene.fleet.kill_main(first)
    scene.worker("second")


#: Bug → the scenario in which it shows, and the rule that it breaks.
BUGS: dict[str, tuple[Callable[[Scene], None], str]] = {
    "ack_before_run": (a_worker_dies_inside_a_batch, "I1"),
    "error_swallowed": (a_handler_raises, "I1"),
    "lease_not_renewed": (a_batch_takes_longer_than_a_lease, "I5"),
    "fencing_off": (a_stopped_worker_settles_late, "I5"),
    "removed_before_copy": (a_worker_dies_while_it_settles_a_retry, "I1"),
}


def play(folder: Path, scenario: Callable[[Scene], None], bug: str) -> Report:
    environment = Environment(folder, broker_url("sqlite", folder), STALL, bug=bug)
    with Scene(environment) as scene:
        scenario(scene)
        return scene.verdict()


@pytest.mark.parametrize("bug", BUGS)
def test_a_seeded_bug_is_found(tmp_path: Path, bug: str) -> None:
    scenario, rule = BUGS[bug]
    report = play(tmp_path / "run", scenario, bug)
    assert rule in {violation.rule for violation in report.violations}


@pytest.mark.parametrize("bug", BUGS)
def test_the_same_scenario_without_the_bug_is_clean(tmp_path: Path, bug: str) -> None:
    scenario, _ = BUGS[bug]
    report = play(tmp_path / "run", scenario, "")
    assert not report.violations
