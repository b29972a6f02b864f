"""Queues filled quickly before a worker starts: `send_batch` for queues, clones of a real task message."""

from __future__ import annotations

import json
import time
from pathlib import Path
from uuid import uuid4

from celery import Celery

from benchmarks import message
from cfqueue import CFQueue
from cfqueue.transport.operations import Put, Row
from cfqueue.transport.store import Store


def queue(folder: Path, name: str, count: int, *, delay_seconds: int | None = None) -> CFQueue:
    """``count`` messages for a queue handler; the CFQueue that sent them."""
    cf = CFQueue(Celery("filling", broker=message.url(folder)))
    for batch in message.batches(count):
        cf.queues[name].send_batch(batch, delay_seconds=delay_seconds)
    return cf


def tasks(folder: Path, name: str, count: int) -> Store:
    """``count`` calls of a plain task: the first through Celery, the rest are its row with other ids.

    Celery sends too slowly to fill a queue with; what is stored is the same.
    """
    app = Celery("filling", broker=message.url(folder))
    app.send_task(f"benchmarks.projects.tasks.{name}", [message.payload(0)], ignore_result=True)
    app.close()
    store = Store.at(str(folder / "queue.db"))
    (first,) = store.peek("celery", 1)
    now = int(time.time() * 1000)
    for start in range(1, count, 100):
        rows = []
        for number in range(start, min(start + 100, count)):
            uid = str(uuid4())
            headers = {**first.headers, "id": uid, "root_id": uid}
            properties = {**(first.properties or {}), "correlation_id": uid, "delivery_tag": uid}
            body = json.dumps(message.celery_body(number))
            rows.append(
                Row("celery", json.dumps(headers), json.dumps(properties), body, len(body), first.priority,
                    now, now, None, uid, first.content_type, first.content_encoding)
            )  # fmt: skip
        store.submit([Put(rows)])
    return store
