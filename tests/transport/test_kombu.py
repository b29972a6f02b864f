"""The transport as kombu sees it."""

from __future__ import annotations

import datetime as dt
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import claim, wait_for
from kombu import Connection, Consumer, Exchange, Queue
from kombu.exceptions import ChannelError

from cfqueue import clock
from cfqueue.errors import BrokerFull
from cfqueue.transport.engine import Engine
from cfqueue.transport.operations import Release, Retry
from cfqueue.transport.store import Store

# Python 3.12 warns of what these tests are about: forks of a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

JOBS = Queue("jobs", Exchange("work"), "jobs")


@pytest.fixture
def connection(path: str, store: Store) -> Iterator[Connection]:
    with Connection(f"cfqueue+sqlite:///{path}") as connection:
        yield connection


def _send(connection: Connection, *bodies: Any, **options: Any) -> None:
    producer = connection.Producer()
    options = {"exchange": "", "routing_key": "jobs"} | options
    for body in bodies:
        producer.publish(body, **options)


def _receive(connection: Connection, number: int, queue: Queue = JOBS, **options: Any) -> list[Any]:
    """Messages, unsettled; the consumer is cancelled afterwards."""
    found: list[Any] = []
    with Consumer(connection, [queue], on_message=found.append, **options):
        while len(found) < number:
            connection.drain_events(timeout=5)
    return found


def _settled(store: Store) -> None:
    wait_for(lambda: store.backlog("jobs").in_flight == 0)


def test_publish_consume_ack(connection: Connection, store: Store) -> None:
    _send(connection, {"n": 1}, "text", b"\xff\x00", exchange=JOBS.exchange, declare=[JOBS])
    messages = _receive(connection, 3)
    assert [m.payload for m in messages] == [{"n": 1}, "text", b"\xff\x00"]
    assert messages[0].delivery_info["exchange"] == "work"
    assert messages[0].delivery_info["redelivered"] is False
    for message in messages:
        message.ack()
    _settled(store)
    assert store.length("jobs") == 0


def test_drain_events_times_out(connection: Connection) -> None:
    with Consumer(connection, [JOBS], on_message=print):
        started = time.monotonic()
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=0.1)
        assert 0.09 < time.monotonic() - started < 1


def test_requeue_and_reject(connection: Connection, store: Store) -> None:
    _send(connection, 1, 2)
    first, second = _receive(connection, 2)
    first.requeue()
    second.reject()
    _settled(store)
    (again,) = _receive(connection, 1)
    assert again.payload == 1
    assert again.delivery_info["redelivered"] is True
    again.ack()
    _settled(store)
    assert store.length("jobs") == 0


def test_reject_honours_a_dead_letter_routing_key(connection: Connection, store: Store) -> None:
    queue = Queue(
        "fragile", queue_arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    )
    _send(connection, "x", routing_key="fragile", declare=[queue])
    (message,) = _receive(connection, 1, queue)
    message.reject()
    wait_for(lambda: store.length("dead") == 1)


def test_higher_priorities_come_first(connection: Connection) -> None:
    for priority in (0, 9, 5, None, 3):
        _send(connection, priority, priority=priority)
    assert [m.payload for m in _receive(connection, 5)] == [9, 5, 3, 0, None]


def test_a_message_with_an_eta_waits_in_the_broker(connection: Connection, store: Store) -> None:
    due = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.5)
    _send(connection, "later", headers={"eta": due.isoformat()})
    _send(connection, "now")
    messages = _receive(connection, 1)
    assert messages[0].payload == "now"
    assert store.length("jobs") == 1
    (later,) = _receive(connection, 1)
    assert later.payload == "later"
    assert dt.timedelta(0) <= dt.datetime.now(dt.UTC) - due < dt.timedelta(seconds=1)


def test_prefetch_limits_what_is_held(connection: Connection, store: Store) -> None:
    _send(connection, *range(20))
    found: list[Any] = []
    with Consumer(connection, [JOBS], on_message=found.append, prefetch_count=3):
        for _ in range(3):
            connection.drain_events(timeout=5)
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=0.05)
        assert store.backlog("jobs").in_flight == 3
        for _ in range(17):
            found[-3].ack()
            connection.drain_events(timeout=5)
        assert [m.payload for m in found] == list(range(20))


def test_what_was_not_acked_is_back_when_the_channel_closes(path: str, store: Store) -> None:
    with Connection(f"cfqueue+sqlite:///{path}") as connection:
        _send(connection, *range(5))
        messages = _receive(connection, 2)
        messages[0].ack()
    _settled(store)
    assert [m.body for m in store.peek("jobs", 10)] == ["1", "2", "3", "4"]
    messages[1].ack()  # late: its channel is closed, the message belongs to whoever has it now
    assert store.length("jobs") == 4


def test_passive_declaration_tells_the_length(connection: Connection) -> None:
    with pytest.raises(ChannelError, match="no queue 'jobs'"):
        connection.default_channel.queue_declare("jobs", passive=True)
    JOBS(connection.default_channel).declare()
    _send(connection, *range(7))
    assert connection.default_channel.queue_declare("jobs", passive=True).message_count == 7
    assert JOBS(connection.default_channel).purge() == 7
    simple = connection.SimpleQueue(JOBS)
    simple.put("x")
    assert simple.qsize() == 1
    got = simple.get(timeout=5)
    got.ack()
    simple.close()


def test_basic_get(connection: Connection, store: Store) -> None:
    assert JOBS(connection.default_channel).get() is None
    _send(connection, 1, 2)
    first = JOBS(connection.default_channel).get()
    first.ack()
    second = JOBS(connection.default_channel).get(no_ack=True)
    assert (first.payload, second.payload) == (1, 2)
    _settled(store)
    assert store.length("jobs") == 0


def test_bindings_are_known_to_processes_that_did_not_declare_them(
    connection: Connection, run: Callable[..., Any], path: str, store: Store
) -> None:
    for queue in (
        Queue("eu", Exchange("news", type="topic"), "eu.#"),
        Queue("sport", Exchange("news", type="topic"), "*.sport"),
        Queue("a", Exchange("all", type="fanout")),
        Queue("b", Exchange("all", type="fanout")),
        JOBS,
    ):
        queue(connection.default_channel).declare()
    sender = run(
        "from kombu import Connection\n"
        f"with Connection('cfqueue+sqlite:///{path}') as c:\n"
        "    p = c.Producer()\n"
        "    p.publish(1, exchange='news', routing_key='eu.sport')\n"
        "    p.publish(2, exchange='news', routing_key='us.sport')\n"
        "    p.publish(3, exchange='all', routing_key=''); p.publish(4, exchange='work', routing_key='jobs')\n"
        "    p.publish(5, exchange='work', routing_key='nowhere')\n"
    )
    assert sender.wait(20) == 0
    lengths = {name: store.length(name) for name in ("eu", "sport", "a", "b", "jobs")}
    assert lengths == {"eu": 1, "sport": 2, "a": 1, "b": 1, "jobs": 1}
    JOBS(connection.default_channel).unbind_from(Exchange("work"), routing_key="jobs")
    _send(connection, "lost", exchange="work", routing_key="jobs")
    assert store.length("jobs") == 1
    JOBS(connection.default_channel).delete()
    assert store.length("jobs") == 0
    assert "jobs" not in store.queues()


def test_consumers_of_two_connections_share_a_queue(path: str, store: Store) -> None:
    with Connection(f"cfqueue+sqlite:///{path}") as one, Connection(f"cfqueue+sqlite:///{path}") as two:
        _send(one, *range(10))
        found: list[Any] = []
        with (
            Consumer(one, [JOBS], on_message=found.append, prefetch_count=5),
            Consumer(two, [JOBS], on_message=found.append, prefetch_count=5),
        ):
            for connection in (one, two):
                for _ in range(5):
                    connection.drain_events(timeout=5)
        assert sorted(m.payload for m in found) == list(range(10))


def test_a_cancelled_consumer_gives_back_what_it_did_not_deliver(
    connection: Connection, store: Store
) -> None:
    _send(connection, *range(10))
    assert len(_receive(connection, 1)) == 1
    wait_for(lambda: store.backlog("jobs").in_flight == 1)
    assert store.length("jobs") == 9


def test_deliveries_without_acks_are_removed(connection: Connection, store: Store) -> None:
    _send(connection, *range(250))
    assert [m.payload for m in _receive(connection, 250, no_ack=True)] == list(range(250))
    _settled(store)
    assert store.length("jobs") == 0


def test_acks_wait_for_a_disk_that_is_full(connection: Connection, store: Store) -> None:
    _send(connection, 1)
    (message,) = _receive(connection, 1)
    submit = store.submit
    refused: list[int] = []

    def full(ops: Any, **more: Any) -> Any:
        if len(refused) < 2:
            refused.append(1)
            raise BrokerFull("full")
        return submit(ops, **more)

    store.submit = full  # type: ignore[method-assign]
    message.ack()
    wait_for(lambda: store.backlog("jobs").in_flight == 0)
    assert len(refused) == 2
    assert store.length("jobs") == 0


def test_passing_queues_go_with_their_process(
    path: str, store: Store, run: Callable[..., Any], connection: Connection
) -> None:
    code = (
        "from kombu import Connection, Queue\n"
        f"c = Connection('cfqueue+sqlite:///{path}'); c.connect()\n"
        "Queue('reply', expires=0.2, auto_delete=True)(c.default_channel).declare()\n"
        "print('declared', flush=True); time.sleep(60)"
    )
    process = run(code)
    assert process.stdout.readline()
    declared = clock.now_ms()
    wait_for(lambda: clock.now_ms() > declared + 250)  # past the expiry: only its living owner keeps it
    store.sweep()
    assert store.queues() == ["reply"]
    process.kill()
    process.wait()
    store.owner()  # brings the keeper, which buries the dead
    wait_for(lambda: store.sweep() or not store.queues())


def test_our_own_messages_carry_what_the_row_knows(connection: Connection, store: Store) -> None:
    _send(connection, 1, headers={"cfq-version": "1", "cfq-timestamp": 77, "cfq-attempts": 1})
    _send(connection, 2)
    (leased, plain) = claim(store)
    assert (leased.timestamp_ms, leased.attempts) == (77, 1)
    store.submit([Retry([(*leased.lease, 3, 0, 1, None)]), Release([plain.lease])])
    found = {m.payload: m.headers for m in _receive(connection, 2)}
    assert (found[1]["cfq-attempts"], found[1]["cfq-suspicion"]) == (3, 1)
    assert "cfq-attempts" not in found[2]


def test_a_forked_child_publishes_and_leaves_its_parents_leases_alone(
    connection: Connection, store: Store
) -> None:
    _send(connection, 1)
    (message,) = _receive(connection, 1)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            connection.release()
            with connection.clone() as own:
                _send(own, 2)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.backlog("jobs").in_flight == 1
    message.ack()
    _settled(store)
    assert [m.payload for m in _receive(connection, 1)] == [2]


def test_an_idle_engine_takes_no_write_lock(connection: Connection, store: Store) -> None:
    with Consumer(connection, [JOBS], on_message=print):
        engine = Engine.of(store)
        wait_for(lambda: engine._asleep)
        writes: list[int] = []
        submit = store.submit
        store.submit = lambda *a, **k: (writes.append(1), submit(*a, **k))[1]  # type: ignore[method-assign]
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=0.6)
        assert writes == []
