"""Fixtures of the worker tests; logs of living workers are shown with a failure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from . import harness
from .harness import Project

POOLS = ("prefork", "threads", "solo")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    report = yield
    if report.when == "call" and report.failed:
        for worker in harness.running:
            report.sections.append((f"log of {worker.name}", "\n".join(worker.log().splitlines()[-80:])))
    return report


@pytest.fixture
def make_project(tmp_path: Any) -> Iterator[Any]:
    """``make_project(source)``: a project whose workers end with the test."""
    made: list[Project] = []

    def make(source: str, **options: Any) -> Project:
        project = Project(tmp_path / f"p{len(made)}", source, **options)
        made.append(project)
        return project

    yield make
    for project in made:
        project.close()


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest) -> str:
    return str(request.param)
