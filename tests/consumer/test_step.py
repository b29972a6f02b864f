"""The seams into Celery's worker: the splitting of queues, and what Celery's own consumer does with our messages."""

from __future__ import annotations

import types
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.worker import WorkController
from kombu import Queue

from cfqueue import CFQueue
from cfqueue.consumer.forward import strategy
from cfqueue.consumer.step import ConsumerStep, WorkerStep, split_queues
from cfqueue.errors import BrokerFull

from .stage import Stage

OnStage = Callable[..., Stage]


def nothing(batch: Any) -> None:
    """A handler that acks."""


@pytest.fixture
def jobs(cf: CFQueue) -> CFQueue:
    for name in ("jobs", "mails"):
        cf.queue(name, max_batch_timeout=0)(nothing)
    return cf


def selected(cf: CFQueue, include: Any = None, exclude: Any = None) -> tuple[set[str], set[str]]:
    """What a worker with these ``-Q`` and ``-X`` serves: our queues, Celery's queues."""
    worker = SimpleNamespace(app=cf.app)
    worker.setup_queues = types.MethodType(WorkController.setup_queues, worker)
    split_queues(worker, lambda: cf.consumers, cf.queue_names)
    worker.setup_queues(include, exclude)
    return set(worker.cfqueue_queues), set(cf.app.amqp.queues.consume_from)


# Which queues are whose


@pytest.mark.parametrize(
    ("include", "exclude", "ours", "theirs"),
    [
        (None, None, {"jobs", "mails"}, {"celery"}),
        ("jobs", None, {"jobs"}, set()),
        ("jobs,celery", None, {"jobs"}, {"celery"}),
        ("celery", None, set(), {"celery"}),
        (["jobs", "slow"], None, {"jobs"}, {"slow"}),
        (None, "jobs", {"mails"}, {"celery"}),
        ("jobs,mails", "mails", {"jobs"}, set()),
    ],
)
def test_our_queues_are_taken_out_before_celery_sees_them(
    jobs: CFQueue, include: Any, exclude: Any, ours: set[str], theirs: set[str]
) -> None:
    assert selected(jobs, include, exclude) == (ours, theirs)


def test_our_queues_in_task_queues_are_deselected_and_it_is_said(
    app: Celery, jobs: CFQueue, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.task_queues = [Queue("celery"), Queue("jobs")]
    assert selected(jobs) == ({"jobs", "mails"}, {"celery"})
    assert "jobs stands in task_queues, too" in caplog.text


def test_task_queues_of_the_hosts_own_are_left_as_they_are(
    app: Celery, jobs: CFQueue, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.task_queues = [Queue("celery"), Queue("slow")]
    assert selected(jobs) == ({"jobs", "mails"}, {"celery", "slow"})
    assert caplog.text == ""


# Messages of ours on Celery's queues


class Message:
    """A message as Celery's consumer has it."""

    def __init__(self, **headers: Any) -> None:
        self.headers = {"task": "cfqueue.queue.jobs", "id": "one", **headers}
        self.body = b'[[{"a": 1}], {}, {"callbacks": null}]'
        self.properties = {"priority": 3}
        self.fate = ""

    def ack_log_error(self, *_: Any) -> None:
        self.fate = "acked"

    def reject_log_error(self, *_: Any, requeue: bool) -> None:
        self.fate = "requeued" if requeue else "rejected"


class Consumer:
    """Celery's consumer, and the queues that it consumes from."""

    def __init__(self, *queues: str) -> None:
        self.queues = set(queues)
        self.task_consumer = SimpleNamespace(consuming_from=lambda name: name in self.queues)

    def cancel_task_queue(self, name: str) -> None:
        self.queues.discard(name)


def received(cf: CFQueue, message: Message, *queues: str, body: Any = None) -> Consumer:
    consumer = Consumer(*queues)
    forward = strategy(cf.consumers["jobs"].task, cf.app, consumer)
    forward(message, body, None, None, None)
    return consumer


def test_a_message_on_celerys_own_queue_is_forwarded_to_its_handlers_queue(jobs: CFQueue) -> None:
    message = Message()
    received(jobs, message, "celery")
    assert message.fate == "acked"
    [copy] = jobs.broker.peek("jobs")
    assert (copy.id, copy.priority, copy.attempts) == ("one", 3, 1)
    assert jobs.queues["jobs"].peek()[0].body == {"a": 1}


def test_a_message_with_an_eta_is_delayed_and_one_with_an_expiry_expires(jobs: CFQueue) -> None:
    message = Message(eta="2999-01-01T00:00:00+00:00", expires="2999-06-01T00:00:00+00:00")
    received(jobs, message, "celery")
    found = jobs.broker.backlog("jobs")
    assert (found.count, found.delayed) == (0, 1)
    assert jobs.broker.peek("jobs")[0].expires_ms is not None


def test_a_message_that_cannot_be_forwarded_stays_where_it_is(
    jobs: CFQueue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise BrokerFull("the disk is full")

    monkeypatch.setattr(jobs.broker, "publish", full)
    message = Message()
    received(jobs, message, "celery")
    assert message.fate == "requeued"
    assert "could not be forwarded" in caplog.text


def test_a_message_from_our_own_queue_is_requeued_and_celery_leaves_the_queue(
    jobs: CFQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """A copy would go to where it came from, for ever, and forget its attempts."""
    message = Message()
    consumer = received(jobs, message, "celery", "jobs")
    assert message.fate == "requeued"
    assert consumer.queues == {"celery"}
    assert jobs.broker.peek("jobs") == []
    assert "leaves it again" in caplog.text


def test_a_message_of_the_first_protocol_is_forwarded_too(jobs: CFQueue) -> None:
    message = Message()
    message.headers = {}
    body = {"task": "cfqueue.queue.jobs", "id": "old", "args": [{"b": 2}], "kwargs": {}}
    received(jobs, message, "celery", body=body)
    assert [(m.id, m.body) for m in jobs.queues["jobs"].peek()] == [("old", {"b": 2})]


# The bootsteps


def test_a_worker_without_queues_of_ours_has_no_service(jobs: CFQueue) -> None:
    worker = SimpleNamespace(app=jobs.app, hostname="w@test", cfqueue_queues=[], hub=None, pool=None)
    step = WorkerStep(worker)
    step.start(worker)
    assert worker.cfqueue is None
    assert step.info(worker) == {}
    step.close(worker)
    ConsumerStep(SimpleNamespace(controller=worker)).shutdown(SimpleNamespace(controller=worker))


def test_stats_tell_what_the_consumer_does(jobs: CFQueue, on_stage: OnStage) -> None:
    stage = on_stage(slots=3)
    jobs.queues["jobs"].send(1)
    stage.given()
    info = stage.service.info()
    assert info["queues"] == ["jobs", "mails"]
    assert (info["batches in the pool"], info["slots"]) == (1, 3)
