"""Plain Celery tasks that do the same work: ``celery -A benchmarks.projects.tasks worker``.

Celery's defaults, but with the prefetch that the batches have, 100 messages, and with their promise: acked
when the work is done (`BENCHMARK_ACKS=early`: when it begins, Celery's own default).
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

import cfqueue  # noqa: F401 - makes cfqueue+sqlite:// known to kombu
from benchmarks.projects.work import BROKER, INSERT, arrived, counter, logs

app = Celery("tasks", broker=BROKER)
app.conf.worker_prefetch_multiplier = 50
app.conf.task_acks_late = os.environ.get("BENCHMARK_ACKS") != "early"
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True


@app.task
def noop(body: dict[str, Any]) -> None:
    counter.add(1)


@app.task
def latency(body: dict[str, Any]) -> None:
    arrived(body["sent"])


@app.task
def insert(body: dict[str, Any]) -> None:
    logs().execute(INSERT, body)
    counter.add(1)
