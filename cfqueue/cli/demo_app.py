"""The demo's Celery program, as a user would write it: an app, a queue and its handler.

The demo starts a worker on it (``celery -A cfqueue.cli.demo_app worker``) and imports it as the
producer. ``CFQUEUE_DEMO_FOLDER`` names the folder with the broker's file and the results.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

from celery import Celery

from cfqueue import CFQueue
from cfqueue.cli import tie  # noqa: F401 - ends the worker when the demo is gone
from cfqueue.cli.demo_files import finding
from cfqueue.cli.demo_results import CheckedFile, DeadLetter, Results

#: The environment variable that names the demo's folder.
FOLDER = "CFQUEUE_DEMO_FOLDER"

folder = Path(os.environ[FOLDER])
results = Results(folder / "results.db")

app = Celery("cfqueue-demo", broker=f"cfqueue+sqlite:///{quote(str(folder / 'broker.db'))}")
cf = CFQueue(app)


@cf.queue(
    "audit",
    max_batch_size=100,
    max_batch_timeout=1,
    max_retries=2,
    dead_letter_queue="audit-dlq",
)
def audit(batch: Any) -> None:
    """Check every file of the batch, store all findings with one INSERT, retry what is not intact."""
    started = time.time()
    rows = []
    for message in batch:
        body = message.body
        found = finding(body["file"], body["sha256"])
        rows.append(CheckedFile(body["number"], message.attempts, body["distribution"], body["path"], found))
        if found != "intact":
            message.retry(delay_seconds=1)
    results.store(rows, batch=uuid.uuid4().hex, process=os.getpid(), started=started, ended=time.time())


@cf.queue("audit-dlq", max_batch_timeout=0)
def bury(batch: Any) -> None:
    """Record the dead letters. A dead-letter queue is an ordinary queue, and this is its handler."""
    results.store_dead_letters(
        [
            DeadLetter(
                message.body["number"],
                message.body["distribution"],
                message.body["path"],
                message.headers["cfq-reason"],
                int(message.headers["cfq-failed-attempts"]),
            )
            for message in batch
        ]
    )
