"""What is not handed to a handler although it was delivered: known, running, doubled, revoked, expired."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery.worker import state

from cfqueue import CFQueue, clock
from cfqueue.brokers.base import GiveBack, Settle, Take, Taken
from cfqueue.messages import DeadLetter, build_message
from cfqueue.transport.store import Store

from .stage import Stage

OnStage = Callable[..., Stage]
Later = Callable[[float], None]


def handler(cf: CFQueue, name: str = "jobs", **settings: Any) -> list[list[Any]]:
    """A handler that notes (id, attempts, body) of what it sees, and fails on the body ``fail``."""
    seen: list[list[Any]] = []

    def function(batch: Any) -> None:
        seen.append([(m.id, m.attempts, m.body) for m in batch])
        for message in batch:
            if message.body == "fail":
                raise ValueError("as asked")

    cf.queue(name, **{"max_batch_timeout": 0, **settings})(function)
    return seen


def lose(stage: Stage, position: int = 0) -> None:
    """The lease of a running batch ends: the messages are at the broker again, for anybody."""
    batch = list(stage.bridge.running.values())[position]
    stage.dispatcher.intake.turn([GiveBack(batch.everything)])


def bury_elsewhere(cf: CFQueue) -> None:
    """Another worker takes the message, fails, and moves it to the queue ``graves``."""
    intake = cf.broker.intake()
    [taken] = intake.turn([Take("jobs", 0, 10, "elsewhere", fill=False)])
    assert isinstance(taken, Taken)
    items = [(delivery, DeadLetter("retries_exhausted")) for delivery in taken.deliveries]
    assert intake.turn([Settle("jobs", items, "graves", at=clock.now())]) == [[]]
    intake.close()


def publish(cf: CFQueue, *bodies: Any, id: str = "same", queue: str = "jobs", **options: Any) -> None:  # noqa: A002
    cf.broker.publish([
        build_message(queue, body, timestamp_ms=1, message_id=id, **options) for body in bodies
    ])  # fmt: skip


def test_a_message_whose_outcome_came_too_late_is_settled_by_it_when_it_comes_back(
    cf: CFQueue, on_stage: OnStage
) -> None:
    seen = handler(cf)
    stage = on_stage()
    sent = cf.queues["jobs"].send("x")
    [job] = stage.given()
    lose(stage)
    job.run()
    stage.drained("jobs")
    assert seen == [[(sent.id, 1, "x")]], "it ran once"


def test_a_dead_letter_is_not_taken_for_the_message_that_it_was(cf: CFQueue, on_stage: OnStage) -> None:
    """Its id is the same and its attempts start at 1 again; what is known of it is of another queue."""
    handler(cf, "jobs", max_retries=0, dead_letter_queue="graves")
    graves = handler(cf, "graves")
    stage = on_stage(slots=2)
    sent = cf.queues["jobs"].send("x")
    [job] = stage.given()
    lose(stage)
    bury_elsewhere(cf)
    job.run()
    stage.drained("jobs", "graves")
    assert graves == [[(sent.id, 1, "x")]]


def test_the_same_id_in_two_queues_is_two_messages(cf: CFQueue, on_stage: OnStage) -> None:
    handler(cf, "jobs")
    others = handler(cf, "others")
    stage = on_stage(slots=2)
    publish(cf, "running")
    stage.given()
    publish(cf, "another", queue="others")
    [_, other] = stage.given(2)
    other.run()
    assert others == [[("same", 1, "another")]]


def test_a_message_that_runs_here_is_held_until_it_has_ended(
    cf: CFQueue, on_stage: OnStage, later: Later
) -> None:
    seen = handler(cf, max_batch_size=1)
    stage = on_stage(slots=2)
    cf.queues["jobs"].send("slow")
    [job] = stage.given()
    lose(stage)
    for _ in range(5):
        stage.until(lambda: stage.counts() == (0, 1, 0), running=False)
        assert stage.jobs == [job], "not beside itself"
        later(1.1)
    job.run()
    later(1.1)
    stage.drained("jobs")
    assert len(seen) == 1


def test_twins_are_handed_over_once_and_both_are_removed(cf: CFQueue, on_stage: OnStage) -> None:
    seen = handler(cf)
    stage = on_stage()
    publish(cf, "one", "two")
    stage.drained("jobs")
    assert [len(batch) for batch in seen] == [1]


def test_of_twins_the_one_with_more_attempts_is_handed_over(
    cf: CFQueue, on_stage: OnStage, later: Later
) -> None:
    seen = handler(cf, max_retries=1, retry_delay=5)
    stage = on_stage()
    publish(cf, "fail")
    stage.given()[0].run()
    stage.turn()
    publish(cf, "fresh", delay_seconds=5)
    later(6)
    stage.drained("jobs")
    assert seen[1:] == [[("same", 2, "fail")]]
    assert stage.letters() == {"same": "retries_exhausted"}


def test_a_retry_of_the_first_twin_keeps_the_message_and_removes_the_second(
    cf: CFQueue, on_stage: OnStage
) -> None:
    handler(cf, max_retries=5, retry_delay=100)
    stage = on_stage()
    publish(cf, "fail", "fail")
    stage.given()[0].run()
    stage.turn()
    assert stage.counts() == (0, 1, 0)


def test_the_late_outcome_of_a_message_is_not_that_of_its_removed_twin(
    cf: CFQueue, on_stage: OnStage
) -> None:
    seen = handler(cf, max_retries=5, retry_delay=100)
    stage = on_stage()
    publish(cf, "fail", "fail")
    [job] = stage.given()
    lose(stage)
    job.run()
    stage.until(lambda: stage.counts() == (0, 1, 0))
    assert [message.attempts for message in cf.queues["jobs"].peek()] == [2], "it is retried, not gone"
    assert len(seen) == 1


def test_a_revoked_message_is_removed_unseen(cf: CFQueue, on_stage: OnStage) -> None:
    seen = handler(cf)
    stage = on_stage()
    [gone, kept] = [cf.queues["jobs"].send(body).id for body in "ab"]
    state.revoked.add(gone)
    stage.drained("jobs")
    assert [[message[0] for message in batch] for batch in seen] == [[kept]]
    assert stage.letters() == {}


def test_a_message_that_has_expired_is_dead_lettered_unseen(
    cf: CFQueue, on_stage: OnStage, later: Later
) -> None:
    seen = handler(cf)
    stage = on_stage()
    sent = cf.queues["jobs"].send("x", expires=10)
    later(11)
    stage.drained("jobs")
    assert seen == []
    assert stage.letters() == {sent.id: "expired"}


def test_a_message_that_expires_while_it_is_held_is_not_delivered(
    cf: CFQueue, on_stage: OnStage, later: Later
) -> None:
    seen = handler(cf, max_batch_timeout=5)
    stage = on_stage()
    sent = cf.queues["jobs"].send("x", expires=3)
    stage.until(lambda: len(stage.lines["jobs"].batcher) == 1)
    later(6)
    stage.drained("jobs")
    assert seen == []
    assert stage.letters() == {sent.id: "expired"}


def test_a_message_whose_deliveries_were_used_up_by_dying_workers_does_not_run(
    cf: CFQueue, on_stage: OnStage, tmp_path: Path
) -> None:
    seen = handler(cf, max_retries=2)
    stage = on_stage()
    sent = cf.queues["jobs"].send("x")
    store = Store.at(str(tmp_path / "q.db"))
    store.write(lambda c: c.execute("UPDATE cfqueue_messages SET attempts = 4, suspicion = 2"))
    stage.drained("jobs")
    assert seen == []
    assert stage.letters() == {sent.id: "crashed"}


def test_the_memory_knows_an_attempt_and_not_the_message(cf: CFQueue, on_stage: OnStage) -> None:
    seen = handler(cf, max_retries=5)
    stage = on_stage()
    cf.queues["jobs"].send("fail")
    [job] = stage.given()
    lose(stage)
    job.run()
    stage.until(lambda: len(seen) >= 2)
    assert [batch[0][1] for batch in seen][:2] == [1, 2], "the late retry was carried out, then attempt 2 ran"
