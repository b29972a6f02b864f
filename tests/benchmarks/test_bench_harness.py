"""The benchmark harness works, and has no figures for an incomplete run. Nothing here asserts a speed."""

import importlib
import inspect
import json
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.__main__ import CASES, main
from benchmarks.model import Case, Goal, Sample, Side
from benchmarks.running import run_case


@pytest.fixture
def pretenders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Case:
    """A case whose sides are functions of this file, run in processes of their own like any other."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    return Case(
        "pretend",
        "Pretended work",
        [
            Side("all", "pretended:work", {"sent": 10, "handled": 10}),
            Side("lost", "pretended:work", {"sent": 10, "handled": 9}),
            Side("doubled", "pretended:work", {"sent": 10, "handled": 11}),
            Side("broken", "pretended:broken"),
            Side("dead", "pretended:dead"),
        ],
        [
            Goal("against itself", "all", "rate", "all", least=1),
            Goal("against a lossy run", "all", "rate", "lost", least=1),
            Goal("of a lossy run", "lost", "rate", least=1),
        ],
    )


def test_incomplete_runs_are_rejected_and_have_no_figures(pretenders: Case) -> None:
    samples = run_case(pretenders, repetitions=2)

    assert [sample.complete for sample in samples["all"]] == [True, True]
    assert samples["lost"][0].rejection == "handled 9 of 10 messages"
    assert samples["doubled"][0].rejection == "handled 11 of 10 messages"
    assert "RuntimeError: pretended" in samples["broken"][0].rejection
    assert "status 7" in samples["dead"][0].rejection
    itself, lossy_peer, lossy = (goal.measure(samples) for goal in pretenders.goals)
    assert (itself.value, itself.met) == (1.0, True)
    assert (lossy_peer.value, lossy_peer.met) == (None, None)
    assert (lossy.value, lossy.met) == (None, None)


def test_results_are_kept_and_name_rejected_runs(pretenders: Case) -> None:
    samples = run_case(pretenders, repetitions=1)
    machine = {"date": "today", "packages": {}}

    kept = json.loads(results.keep(pretenders, samples, machine, "the command", quick=False).read_text())

    assert kept["goals"][0]["met"] is True
    assert kept["goals"][1]["measured"] is None
    assert kept["samples"]["lost"][0] == {"sent": 10, "handled": 9, "figures": {"rate": 5.0}, "trouble": ""}
    assert "rejected" in str(results.table(pretenders, samples).caption)


def test_ratio_and_difference_and_bounds() -> None:
    samples = {"a": [Sample(1, 1, {"x": 6}), Sample(1, 1, {"x": 8})], "b": [Sample(1, 1, {"x": 2})]}

    assert Goal("", "a", "x", "b", least=4).measure(samples).met is False
    assert Goal("", "a", "x", "b", ratio=False, most=5).measure(samples).value == 5
    assert Goal("", "a", "x", "b").measure(samples).met is None


def test_every_side_names_a_function_that_takes_its_parameters() -> None:
    for case in CASES:
        for side in case.sides:
            module, _, name = side.run.partition(":")
            function = getattr(importlib.import_module(module), name)
            inspect.signature(function).bind(Path(), **side.arguments(quick=True))
        for goal in case.goals:
            assert {goal.subject, goal.peer or goal.subject} <= {side.name for side in case.sides}


def test_a_real_case_runs_end_to_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")

    assert main(["--quick", "--case", "imports", "--report", str(tmp_path / "report.md")]) == 0

    kept = json.loads((tmp_path / "results" / "quick" / "imports.json").read_text())
    assert [sample["trouble"] for samples in kept["samples"].values() for sample in samples] == ["", ""]
    assert "added to Celery" in capsys.readouterr().out
    assert (tmp_path / "report.md").read_text().startswith("# Benchmarks")
