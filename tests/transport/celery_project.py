"""A Celery project on the embedded broker, as its user would write it; `test_celery` runs its worker."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery

from cfqueue.transport import register

register()
FOLDER = os.environ.get("CFQUEUE_TEST_FOLDER", ".")
app = Celery("project", broker=f"cfqueue+sqlite:///{FOLDER}/queue.db", backend=f"file://{FOLDER}/results")
app.conf.task_default_queue = "tasks"
app.conf.worker_hijack_root_logger = False


@app.task
def add(a: int, b: int) -> int:
    return a + b


@app.task(bind=True)
def flaky(self: Any) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return int(self.request.retries)


@app.task(bind=True)
def arrival(self: Any) -> float:
    return time.time()


@app.task(acks_late=True)
def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@app.task(acks_late=True)
def relay(number: int) -> int:
    """Publishes from inside the pool."""
    add.apply_async((number, 0), ignore_result=True)
    return number
