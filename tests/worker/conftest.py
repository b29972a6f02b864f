"""Fixtures of the worker tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .harness import POOLS, Project


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
