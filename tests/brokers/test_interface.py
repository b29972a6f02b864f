"""The conformance suite of the broker interface: every sentence of ``brokers/base.py``, on every broker."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worker.harness import BROKERS, TESTS, eventually

from cfqueue import clock
from cfqueue.brokers import open_broker
from cfqueue.brokers.base import Begin, Begun, Broker, GiveBack, Intake, Settle, Take, Taken
from cfqueue.errors import ConfigurationError
from cfqueue.messages import Ack, DeadLetter, Delivery, Drop, Retry, build_message, read_message
from cfqueue.messages.outcome import ErrorInfo, Outcome
from cfqueue.transport.store import Store

QUEUE, DEAD = "jobs", "jobs-dlq"


@pytest.fixture(params=BROKERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return BROKERS[request.param](tmp_path)


@pytest.fixture
def broker(url: str, tmp_path: Path) -> Iterator[Broker]:
    broker = open_broker(url)
    yield broker
    broker.close()
    if (tmp_path / "q.db").exists():
        Store.at(str(tmp_path / "q.db")).close()


@pytest.fixture
def intake(broker: Broker) -> Iterator[Intake]:
    intake = broker.intake()
    yield intake
    intake.close()


def send(broker: Broker, *bodies: Any, queue: str = QUEUE, **options: Any) -> list[str]:
    messages = [build_message(queue, body, timestamp_ms=clock.now_ms(), **options) for body in bodies]
    broker.publish(messages)
    return [message.id for message in messages]


def take(intake: Intake, limit: int = 10, suspicion: int = 0, **options: Any) -> Taken:
    [taken] = intake.turn([Take(QUEUE, suspicion, limit, **{"batch_id": "b1", "fill": False, **options})])
    assert isinstance(taken, Taken)
    return taken


def begin(intake: Intake, batch_id: str, deliveries: list[Delivery], **options: Any) -> Begun:
    [begun] = intake.turn([Begin(QUEUE, batch_id, deliveries, **options)])
    assert isinstance(begun, Begun)
    return begun


def settle(intake: Intake, *items: tuple[Delivery, Outcome], **options: Any) -> list[Delivery]:
    [fenced] = intake.turn(
        [Settle(QUEUE, items, **{"dead_letter_queue": DEAD, "at": clock.now(), **options})]
    )
    assert isinstance(fenced, list)
    return fenced


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.id for delivery in deliveries]


def counts(broker: Broker, queue: str = QUEUE) -> tuple[Any, ...]:
    found = broker.backlog(queue)
    return found.count, found.delayed, found.in_flight


# Publishing and looking


def test_what_was_published_is_delivered_as_it_was(broker: Broker, intake: Intake) -> None:
    for body, kind in [({"a": [1, None, "ü"]}, "json"), ("grün", "text"), (b"\x00\xff", "bytes")]:
        message = build_message(
            QUEUE, body, kind, timestamp_ms=1_700_000_000_123, priority=4, headers={"x-own": "kept"}
        )
        broker.publish([message])
        [delivery] = take(intake).deliveries
        read = read_message(delivery)
        assert (read.id, read.body, read.content_type, read.attempts) == (message.id, body, kind, 1)
        assert read.timestamp.timestamp() == 1_700_000_000.123
        assert (delivery.queue, delivery.priority, delivery.suspicion) == (QUEUE, 4, 0)
        assert delivery.headers["x-own"] == "kept"
        settle(intake, (delivery, Ack()))


def test_an_expiry_is_delivered_with_the_message(broker: Broker, intake: Intake) -> None:
    send(broker, 1, expires_ms=2_000_000_000_000)
    assert take(intake).deliveries[0].expires_ms == 2_000_000_000_000


def test_a_queue_needs_no_declaration_and_one_may_be_repeated(broker: Broker) -> None:
    assert counts(broker, "unknown") == (0, 0, 0)
    assert broker.peek("unknown") == []
    broker.declare([QUEUE, DEAD])
    [message] = send(broker, 1)
    broker.declare([QUEUE])
    assert ids(broker.peek(QUEUE)) == [message]


def test_the_backlog_tells_what_waits(broker: Broker, intake: Intake) -> None:
    send(broker, "aa", "bb")
    send(broker, "later", delay_seconds=100)
    found = broker.backlog(QUEUE)
    assert (found.count, found.bytes, found.delayed, found.in_flight, found.suspects) == (2, 8, 1, 0, 0)
    assert found.oldest_ms is not None
    assert abs(found.oldest_ms - clock.now_ms()) < 60_000
    take(intake, 1)
    assert counts(broker) == (1, 1, 1)


def test_peeking_changes_nothing(broker: Broker, intake: Intake) -> None:
    sent = send(broker, *range(5))
    for _ in range(20):
        assert ids(broker.peek(QUEUE, 3)) == sent[:3]
    found = take(intake).deliveries
    assert [(d.id, d.attempts, d.suspicion) for d in found] == [(i, 1, 0) for i in sent]


def test_purging_spares_what_a_worker_holds(broker: Broker, intake: Intake) -> None:
    send(broker, "held", "waits")
    send(broker, "later", delay_seconds=100)
    held = take(intake, 1).deliveries
    assert broker.purge(QUEUE) == 2
    assert counts(broker) == (0, 0, 1)
    settle(intake, (held[0], Ack()))
    assert counts(broker) == (0, 0, 0)


def test_an_intake_is_told_when_there_is_something_to_take(broker: Broker, intake: Intake) -> None:
    descriptor = intake.fileno()
    intake.drain()
    if descriptor < 0:
        pytest.skip("this broker has no descriptor")
    assert not select.select([descriptor], [], [], 0)[0]
    send(broker, 1)
    assert select.select([descriptor], [], [], 5)[0]
    intake.drain()


# Taking


def test_the_oldest_of_the_highest_priority_is_taken_first(broker: Broker, intake: Intake) -> None:
    low = send(broker, 1, 2)
    high = send(broker, 3, 4, priority=9)
    middle = send(broker, 5, priority=1)
    assert ids(take(intake, 4).deliveries) == [*high, *middle, low[0]]


def test_a_full_batch_begins_at_once_and_a_partial_one_only_when_it_need_not_fill(
    broker: Broker, intake: Intake
) -> None:
    send(broker, *range(5))
    full = take(intake, 2, batch_id="full", fill=True)
    assert (len(full.deliveries), full.begun) == (2, True)
    rest = take(intake, 10, batch_id="rest", fill=True)
    assert (len(rest.deliveries), rest.begun) == (3, False)
    send(broker, 6)
    assert take(intake, 10, batch_id="soon", fill=False).begun
    send(broker, *range(2))
    held = take(intake, 2, batch_id=None)
    assert (len(held.deliveries), held.begun) == (2, False)
    assert take(intake).deliveries == []


def test_held_messages_begin_when_their_batch_is_due(broker: Broker, intake: Intake) -> None:
    send(broker, 1, 2)
    held = take(intake, 10, batch_id=None).deliveries
    begun = begin(intake, "later", held)
    assert (begun.ok, begun.busy, list(begun.lost)) == (True, False, [])
    assert settle(intake, *((d, Ack()) for d in held)) == []
    assert counts(broker) == (0, 0, 0)


def test_what_is_no_longer_ours_does_not_begin(broker: Broker, intake: Intake) -> None:
    send(broker, 1, 2)
    gone, kept = take(intake, 10, batch_id=None).deliveries
    intake.turn([GiveBack([gone])])
    begun = begin(intake, "b", [gone, kept])
    assert not begun.ok
    assert not begun.busy
    assert ids(list(begun.lost)) == [gone.id]
    assert begin(intake, "b", [kept]).ok


def test_a_delayed_message_is_taken_when_it_is_due_and_not_before(broker: Broker, intake: Intake) -> None:
    [message] = send(broker, 1, delay_seconds=1)
    sent = clock.now()
    assert take(intake).deliveries == []
    due = intake.next_due([QUEUE])
    assert due is not None
    assert 0.5 < due - sent <= 1.1
    found = eventually(lambda: take(intake).deliveries)
    assert ids(found) == [message]
    assert clock.now() >= due
    assert intake.next_due([QUEUE]) is None


def test_max_concurrency_counts_batches_that_have_begun(broker: Broker, intake: Intake) -> None:
    send(broker, *range(6))
    first = take(intake, 2, batch_id="one", max_concurrency=2).deliveries
    take(intake, 2, batch_id="two", max_concurrency=2)
    assert take(intake, 2, batch_id="three", max_concurrency=2).deliveries == []
    held = take(intake, 1, batch_id=None).deliveries
    busy = begin(intake, "three", held, max_concurrency=2)
    assert (busy.ok, busy.busy) == (False, True)
    settle(intake, *((d, Ack()) for d in first))
    assert begin(intake, "three", held, max_concurrency=2).ok


# Settling


def test_every_message_has_its_own_fate(broker: Broker, intake: Intake) -> None:
    acked, retried, buried, dropped = send(broker, *range(4))
    one, two, three, four = take(intake).deliveries
    assert settle(
        intake, (one, Ack()), (two, Retry(0)), (three, DeadLetter("rejected")), (four, Drop("expired"))
    ) == []  # fmt: skip
    [again] = take(intake).deliveries
    assert (again.id, again.attempts, again.suspicion) == (retried, 2, 0)
    assert ids(broker.peek(DEAD)) == [buried]
    settle(intake, (again, Ack()))
    assert counts(broker) == (0, 0, 0)
    assert {acked, dropped}.isdisjoint(ids(broker.peek(QUEUE)) + ids(broker.peek(DEAD)))


def test_a_retry_keeps_everything_but_its_attempts_and_waits_for_its_delay(
    broker: Broker, intake: Intake
) -> None:
    send(broker, {"a": 1}, priority=7, headers={"x-own": "kept"}, expires_ms=2_000_000_000_000)
    [before] = take(intake).deliveries
    settle(intake, (before, Retry(1)))
    assert counts(broker) == (0, 1, 0)
    [after] = eventually(lambda: take(intake).deliveries)
    for field in ("id", "body", "priority", "timestamp_ms", "expires_ms", "queue"):
        assert getattr(after, field) == getattr(before, field), field
    assert after.attempts == 2
    assert after.headers["x-own"] == "kept"
    assert after.first_failed_ms is not None
    settle(intake, (after, Retry(0)))
    assert take(intake).deliveries[0].first_failed_ms == after.first_failed_ms


def test_a_dead_letter_starts_anew_in_its_queue_and_says_why(broker: Broker, intake: Intake) -> None:
    send(broker, {"a": 1}, headers={"x-own": "kept"})
    [first] = take(intake).deliveries
    settle(intake, (first, Retry(0)))
    [second] = take(intake).deliveries
    settle(intake, (second, DeadLetter("retries_exhausted", ErrorInfo("ValueError", "bad", "Traceback…"))))
    [letter] = broker.peek(DEAD)
    assert (letter.id, letter.body, letter.timestamp_ms) == (first.id, first.body, first.timestamp_ms)
    assert (letter.attempts, letter.suspicion, letter.queue) == (1, 0, DEAD)
    headers = letter.headers
    assert headers["x-own"] == "kept"
    assert (headers["cfq-reason"], headers["cfq-origin"], headers["cfq-failed-attempts"]) == (
        "retries_exhausted",
        QUEUE,
        2,
    )
    assert (headers["cfq-error-type"], headers["cfq-error-message"]) == ("ValueError", "bad")
    assert headers["cfq-first-failure"] <= headers["cfq-last-failure"]


def test_a_dead_letter_can_be_delayed(broker: Broker, intake: Intake) -> None:
    send(broker, 1)
    settle(intake, (take(intake).deliveries[0], DeadLetter("rejected")), dead_letter_delay=100)
    assert counts(broker, DEAD) == (0, 1, 0)


def test_giving_back_charges_nothing_and_can_wait(broker: Broker, intake: Intake) -> None:
    sent = send(broker, 1, 2)
    held, started = take(intake, 1, batch_id=None).deliveries + take(intake, 1).deliveries
    intake.turn([GiveBack([held, started])])
    again = take(intake).deliveries
    assert [(d.id, d.attempts, d.suspicion) for d in again] == [(i, 1, 0) for i in sent]
    intake.turn([GiveBack(again, hold=60)])
    assert counts(broker) == (0, 2, 0)


def test_a_late_outcome_changes_nothing_and_is_named(broker: Broker, intake: Intake) -> None:
    send(broker, 1, 2, 3)
    stale = take(intake).deliveries
    intake.turn([GiveBack(stale)])
    fresh = take(intake).deliveries
    fenced = settle(intake, (stale[0], Ack()), (stale[1], Retry(0)), (stale[2], DeadLetter("rejected")))
    assert ids(fenced) == ids(stale)
    assert counts(broker) == (0, 0, 3)
    assert broker.peek(DEAD) == []
    assert settle(intake, *((d, Ack()) for d in fresh)) == []


def test_all_moves_of_a_turn_are_carried_out_with_one_result_each(broker: Broker, intake: Intake) -> None:
    send(broker, *range(4))
    first, second = take(intake, 1).deliveries[0], take(intake, 1).deliveries[0]
    results = intake.turn(
        [
            Settle(QUEUE, [(first, Ack())], DEAD, at=clock.now()),
            GiveBack([second]),
            Take(QUEUE, 0, 2, "next", fill=False),
            Take("nothing-here", 0, 2, "none", fill=False),
        ]
    )
    assert len(results) == 4
    assert results[0] == []
    assert isinstance(results[2], Taken)
    assert len(results[2].deliveries) == 2
    assert isinstance(results[3], Taken)
    assert results[3].deliveries == []


# Suspicion


def test_suspicion_is_carried_by_a_retry_and_taken_only_when_asked_for(
    broker: Broker, intake: Intake
) -> None:
    suspect, alone, fresh = send(broker, 1, 2, 3, priority=2)
    deliveries = take(intake).deliveries
    settle(intake, *((d, Retry(0)) for d in deliveries), suspicion={suspect: 1, alone: 2})
    assert intake.suspects([QUEUE, "other"]) == {QUEUE: {0: 2, 1: 2, 2: 2}}
    assert broker.backlog(QUEUE).suspects == 2
    assert ids(take(intake).deliveries) == [fresh]
    [found] = take(intake, suspicion=1).deliveries
    assert (found.id, found.suspicion) == (suspect, 1)
    [found] = take(intake, suspicion=2).deliveries
    assert (found.id, found.suspicion) == (alone, 2)
    assert intake.suspects([QUEUE]) == {}


_VICTIM = """
import sys, time
from cfqueue.brokers import open_broker
from cfqueue.brokers.base import Take
url, suspicion = sys.argv[1], int(sys.argv[2])
intake = open_broker(url).intake()
[started] = intake.turn([Take("jobs", suspicion, 1, "b", fill=False)])
[held] = intake.turn([Take("jobs", suspicion, 1, None)])
print(started.deliveries[0].id, held.deliveries[0].id, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(("before", "after"), [(0, (1, 1)), (1, (2, 1)), (2, (2, 2))])
def test_a_dead_owners_messages_come_back_with_what_their_suspicion_says(
    broker: Broker, intake: Intake, url: str, before: int, after: tuple[int, int]
) -> None:
    sent = send(broker, 1, 2)
    deliveries = take(intake).deliveries
    settle(intake, *((d, Retry(0)) for d in deliveries), suspicion=dict.fromkeys(sent, before))
    path = [str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    victim = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_VICTIM), url, str(before)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    )  # fmt: skip
    try:
        assert victim.stdout is not None
        started, held = victim.stdout.readline().split()
        assert counts(broker) == (0, 0, 2)
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
    died = time.monotonic()
    eventually(lambda: broker.backlog(QUEUE).in_flight == 0)
    assert time.monotonic() - died < 1.5, "within a second, and half a one for a busy machine"
    found = {m.id: (m.suspicion, m.attempts - 1) for m in broker.peek(QUEUE)}
    assert found == {started: after, held: (before, 1)}


# Finding the driver


def test_a_url_without_a_driver_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="cfqueue_broker_url"):
        open_broker("sqs://")


@pytest.mark.parametrize("bad", ["cfqueue+sqlite://", "cfqueue+sqlite:///", "cfqueue+sqlite:///:memory:"])
def test_a_url_that_names_no_file_is_refused(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="absolute"):
        open_broker(bad)
