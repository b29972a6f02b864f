"""What a worker takes from the application: settings read early, raised limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from cfqueue import CFQueue
from cfqueue.transport.store import Store

from .stage import Stage

OnStage = Callable[..., Stage]


def nothing(batch: Any) -> None:
    """A handler that acks."""


@pytest.mark.parametrize("read", ["config", "env", "settings", "names"])
def test_what_is_read_before_the_application_is_bound_does_not_hide_its_settings(
    tmp_path: Path, read: str
) -> None:
    cf = CFQueue(config={"queues": {"producers": [{"binding": "JOBS", "queue": "jobs"}]}})
    handler = cf.queue("jobs")(nothing)
    early: dict[str, Callable[[], Any]] = {
        "config": lambda: cf.config,
        "env": lambda: cf.env.JOBS.name,
        "settings": lambda: handler.settings,
        "names": cf.queue_names,
    }
    assert early[read]() is not None
    app = Celery("late", broker="memory://", set_as_current=False)
    url = f"cfqueue+sqlite:///{tmp_path / 'late.db'}"
    app.conf.update(cfqueue_broker_url=url, cfqueue_queues={"jobs": {"max_retries": 7}})
    cf.init_app(app)
    assert handler.settings.max_retries == 7
    assert cf.broker_url == url
    handler.send("x")
    assert cf.queues["jobs"].metrics().backlog_count == 1
    Store.at(str(tmp_path / "late.db")).close()


def test_a_raised_delay_holds_from_the_handler_to_the_broker(
    app: Celery, cf: CFQueue, on_stage: OnStage
) -> None:
    app.conf.cfqueue_max_delay_seconds = 200_000

    @cf.queue("jobs", max_batch_timeout=0)
    def jobs(batch: Any) -> None:
        batch[0].retry(delay_seconds=100_000)

    stage = on_stage()
    cf.queues["jobs"].send("x")
    stage.until(lambda: stage.counts() == (0, 1, 0))
    assert [message.attempts for message in cf.queues["jobs"].peek()] == [2]
    assert stage.letters() == {}


def test_a_raised_delay_holds_in_eager_mode_too(app: Celery, cf: CFQueue) -> None:
    app.conf.cfqueue_max_delay_seconds = 200_000
    accepted: list[int] = []

    @cf.queue("jobs")
    def jobs(batch: Any) -> None:
        if batch[0].attempts == 1:
            batch[0].retry(delay_seconds=100_000)
        accepted.append(batch[0].attempts)

    assert jobs.apply(("x",)).state == "SUCCESS"
    assert accepted == [1, 2]
