"""One process publishes and drains: cfqueue, kombu's own SQLite transport, and bare SQLite.

All sides sync every commit (SQLite's ``synchronous=FULL``) and write the same message with the same
headers. kombu has no batches; its side publishes and acks one by one, with ``prefetch_count=100``.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import astuple
from pathlib import Path
from typing import Any

import kombu
from celery import Celery

from benchmarks import message
from benchmarks.model import Case, Goal, Sample, Side, percentile
from cfqueue import CFQueue
from cfqueue.brokers.base import Settle, Take, Taken
from cfqueue.messages import build_message, read_message
from cfqueue.messages.outcome import ACK
from cfqueue.transport import statements
from cfqueue.transport.operations import Row
from cfqueue.transport.store import Store

_WARM_UP = 20


def _queue(folder: Path) -> tuple[CFQueue, Any]:
    cf = CFQueue(Celery("bench", broker=message.url(folder)))
    return cf, cf.queues[message.QUEUE]


class _Watch:
    """Times every call; gives rate, processor time and percentiles."""

    def __init__(self) -> None:
        self.calls: list[float] = []
        self._started = time.perf_counter()
        self._worked = time.process_time()

    def timed(self, call: Any, *given: Any) -> Any:
        started = time.perf_counter()
        answer = call(*given)
        self.calls.append(time.perf_counter() - started)
        return answer

    def figures(self, what: str, count: int) -> dict[str, float]:
        seconds = time.perf_counter() - self._started
        found = {
            f"{what}_rate": count / seconds,
            f"{what}_cpu_us": (time.process_time() - self._worked) / count * 1e6,
        }
        for percent in (50, 95, 99) if self.calls else ():
            found[f"{what}_p{percent}_ms"] = percentile(self.calls, percent) * 1e3
        return found


def singles(folder: Path, messages: int) -> Sample:
    """`send`, one message after the other."""
    _, queue = _queue(folder)
    for number in range(_WARM_UP):
        queue.send(message.payload(number))
    watch = _Watch()
    for number in range(messages):
        watch.timed(queue.send, message.payload(number))
    figures = watch.figures("publish", messages)
    return Sample(messages + _WARM_UP, queue.metrics().backlog_count, figures)


def batches(folder: Path, messages: int) -> Sample:
    """`send_batch` of 100, then batches of 100 taken, decoded and acked as a worker does it."""
    cf, queue = _queue(folder)
    for batch in message.batches(500):
        queue.send_batch(batch)
    queue.purge()
    waiting = message.batches(messages)
    watch = _Watch()
    for batch in waiting:
        watch.timed(queue.send_batch, batch)
    figures = watch.figures("publish", messages)
    stored = queue.metrics().backlog_count
    watch = _Watch()
    handled = drain(cf)
    figures |= watch.figures("drain", handled)
    left = queue.metrics()
    trouble = "messages were left" if left.backlog_count or left.in_flight_count else ""
    return Sample(messages, handled if stored == messages else stored, figures, trouble)


def drain(cf: CFQueue) -> int:
    """Everything that waits, in batches of 100; how many there were."""
    intake = cf.broker.intake()
    handled, number = 0, 0
    settle: list[Settle] = []
    while True:
        number += 1
        taken = intake.turn([*settle, Take(message.QUEUE, 0, 100, f"batch{number}", fill=False)])[-1]
        assert isinstance(taken, Taken)
        if not taken.deliveries:
            intake.close()
            return handled
        for delivery in taken.deliveries:
            read_message(delivery)
        handled += len(taken.deliveries)
        settle = [Settle(message.QUEUE, [(delivery, ACK) for delivery in taken.deliveries], None)]


def raw(folder: Path, messages: int) -> Sample:
    """executemany of rows made before, into the same table, one transaction per 100."""
    Store.at(str(folder / "queue.db")).close()
    rows = []
    for number in range(messages):
        built = build_message(message.QUEUE, message.payload(number), timestamp_ms=0)
        headers = json.dumps(built.headers, separators=(",", ":"))
        row = Row(built.queue, headers, None, built.body, built.size, 0, 0, 0, None, built.id)
        rows.append(astuple(row))
    connection = sqlite3.connect(folder / "queue.db", isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    insert = statements.put(1)
    watch = _Watch()
    for start in range(0, messages, 100):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(insert, rows[start : start + 100])
        connection.execute("COMMIT")
    figures = watch.figures("publish", messages)
    (stored,) = connection.execute("SELECT count(*) FROM cfqueue_messages").fetchone()
    return Sample(messages, stored, figures, "" if mode == "wal" else f"journal mode {mode}")


def through_kombu(folder: Path, messages: int, scheme: str) -> Sample:
    """kombu's own Producer and Consumer on a SQLite file, by either transport."""
    with kombu.Connection(f"{scheme}:///{folder / 'queue.db'}") as connection:
        channel = connection.channel()
        exchange = kombu.Exchange(message.QUEUE, "direct")
        queue = kombu.Queue(message.QUEUE, exchange, message.QUEUE)(channel)
        queue.declare()
        producer = kombu.Producer(channel, exchange, message.QUEUE, serializer="json", auto_declare=False)
        headers = message.celery_headers()

        def publish(number: int) -> None:
            producer.publish(message.celery_body(number), headers={**headers, "id": f"{number:032x}"})

        for number in range(_WARM_UP):
            publish(number)
        queue.purge()
        watch = _Watch()
        for number in range(messages):
            watch.timed(publish, number)
        figures = watch.figures("publish", messages)
        stored = queue.queue_declare(passive=True).message_count
        handled = 0

        def receive(_: Any, delivered: kombu.Message) -> None:
            nonlocal handled
            handled += 1
            delivered.ack()

        consumer = kombu.Consumer(channel, [queue], callbacks=[receive], accept=["json"], auto_declare=False)
        consumer.qos(prefetch_count=100)
        watch = _Watch()
        with consumer:
            while handled < stored:
                connection.drain_events(timeout=5)
        figures |= watch.figures("drain", handled)
        left = queue.queue_declare(passive=True).message_count
    return Sample(messages, handled, figures, f"{left} messages were left" if left else "")


CASE = Case(
    "broker",
    "One process publishes and drains (SQLite, synchronous=FULL)",
    [
        Side("kombu sqla+sqlite", "benchmarks.broker:through_kombu", {"messages": 1000, "scheme": "sqla+sqlite"},
             {"messages": 200}),
        Side("send", "benchmarks.broker:singles", {"messages": 4000}, {"messages": 3000}),
        Side("send_batch(100)", "benchmarks.broker:batches", {"messages": 20000}, {"messages": 5000}),
        Side("executemany", "benchmarks.broker:raw", {"messages": 20000}, {"messages": 5000}),
        Side("kombu cfqueue+sqlite", "benchmarks.broker:through_kombu",
             {"messages": 4000, "scheme": "cfqueue+sqlite"}, {"messages": 1000}),
    ],
    [
        Goal("publish in batches of 100, against kombu's sqla+sqlite", "send_batch(100)", "publish_rate",
             "kombu sqla+sqlite", least=20),
        Goal("drain in batches of 100, against kombu's sqla+sqlite", "send_batch(100)", "drain_rate",
             "kombu sqla+sqlite", least=20),
        Goal("publish one by one, against kombu's sqla+sqlite", "send", "publish_rate", "kombu sqla+sqlite",
             least=8),
        Goal("send_batch(100), against a raw executemany", "send_batch(100)", "publish_rate", "executemany",
             least=0.15),
        Goal("kombu Producer on our transport, against sqla+sqlite", "kombu cfqueue+sqlite", "publish_rate",
             "kombu sqla+sqlite"),
        Goal("kombu Consumer on our transport, against sqla+sqlite", "kombu cfqueue+sqlite", "drain_rate",
             "kombu sqla+sqlite"),
    ],
    repetitions=5,
)  # fmt: skip
