"""Fixtures of the consumer's tests: an application on a file of its own, stages on it, time to be moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.worker import state

from cfqueue import CFQueue, clock
from cfqueue.transport.store import Store

from .stage import Stage


@pytest.fixture
def app(tmp_path: Path) -> Celery:
    """An application of its own, on the embedded broker."""
    app = Celery("staged", broker=f"cfqueue+sqlite:///{tmp_path / 'q.db'}", set_as_current=False)
    app.conf.result_backend = "cache+memory://"
    return app


@pytest.fixture
def cf(app: Celery, tmp_path: Path) -> Iterator[CFQueue]:
    yield CFQueue(app)
    if (tmp_path / "q.db").exists():
        Store.at(str(tmp_path / "q.db")).close()


@pytest.fixture
def on_stage(cf: CFQueue) -> Iterator[Callable[..., Stage]]:
    """``on_stage(slots=1)``: a worker's consumer; make it when the handlers are there."""
    made: list[Stage] = []

    def make(slots: int = 1, **worker: Any) -> Stage:
        made.append(Stage(cf, slots, **worker))
        return made[-1]

    yield make
    for stage in made:
        stage.close()
    state.reset_state()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """``later(seconds)``: the clocks go forward."""
    real = (clock.now, clock.now_ms, clock.monotonic)
    passed = 0.0

    def move(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    monkeypatch.setattr(clock, "now", lambda: real[0]() + passed)
    monkeypatch.setattr(clock, "now_ms", lambda: real[1]() + round(passed * 1000))
    monkeypatch.setattr(clock, "monotonic", lambda: real[2]() + passed)
    return move
