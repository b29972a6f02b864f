"""Queue handlers: ``celery -A benchmarks.projects.queues worker -Q noop``."""

from __future__ import annotations

from typing import Any

from celery import Celery

from benchmarks.projects.work import BROKER, INSERT, arrived, counter, logs
from cfqueue import CFQueue, MessageBatch

app = Celery("queues", broker=BROKER)
cf = CFQueue(app)


@cf.queue("noop", max_batch_size=100, max_batch_timeout=1)
def noop(batch: MessageBatch) -> None:
    counter.add(len(batch))


@cf.queue("latency", max_batch_size=100, max_batch_timeout=0)
def latency(batch: MessageBatch) -> None:
    for message in batch:
        arrived(message.body["sent"])


@cf.queue("insert", max_batch_size=100, max_batch_timeout=1)
def insert(batch: MessageBatch) -> None:
    database: Any = logs()
    database.execute("BEGIN IMMEDIATE")
    database.executemany(INSERT, [message.body for message in batch])
    database.execute("COMMIT")
    counter.add(len(batch))
