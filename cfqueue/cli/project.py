"""The files that ``cfqueue init`` writes. Nothing in them depends on the folder they are written to."""

from __future__ import annotations

_WRANGLER = """\
# The queues of this project, in Cloudflare's format. Settings left out have Cloudflare's defaults.
name = "{name}"

[[queues.producers]]
queue = "jobs"
binding = "JOBS"            # in Python: cf.env.JOBS.send(...)

[[queues.consumers]]
queue = "jobs"
max_batch_size = 10         # a batch is delivered when it has this many messages ...
max_batch_timeout = 1       # ... or when its first message has waited this many seconds
max_retries = 3             # then a message goes to the dead-letter queue
dead_letter_queue = "jobs-dlq"
"""

_APP = '''\
"""A queue and its handler. `cfqueue dev` runs it; `python app.py` sends five messages."""

import os
from pathlib import Path
from urllib.parse import quote

from celery import Celery

from cfqueue import CFQueue

FOLDER = Path(__file__).resolve().parent
# One SQLite file is the broker. For another one set CFQUEUE_BROKER_URL.
BROKER = os.environ.get("CFQUEUE_BROKER_URL") or "cfqueue+sqlite:///" + quote(f"{FOLDER}/queues.db")

app = Celery("app", broker=BROKER)
cf = CFQueue(app, config=str(FOLDER / "wrangler.toml"))


@cf.queue("jobs")
def handle(batch, env):
    """Print each number. Every third one is not ready the first time and is retried."""
    for message in batch:
        number = message.body["number"]
        if number % 3 == 0 and message.attempts == 1:
            print(f"number {number} is not ready: again in 2 seconds")
            message.retry(delay_seconds=2)
        else:
            print(f"number {number}, attempt {message.attempts}")
            message.ack()


if __name__ == "__main__":
    handle.send_batch([{"body": {"number": number}} for number in range(1, 6)])
    print("sent 5 messages")
'''

_TEST = '''\
"""Tests of the handler: no broker and no worker is needed."""

from app import handle
from cfqueue.testing import create_message_batch, get_queue_result


def test_a_number_that_is_not_ready_is_retried():
    batch = create_message_batch(
        "jobs",
        [{"id": "one", "body": {"number": 1}}, {"id": "three", "body": {"number": 3}}],
    )
    result = get_queue_result(batch, handle)
    assert result.outcome == "ok"
    assert result.explicit_acks == ["one"]
    assert [message.msg_id for message in result.retry_messages] == ["three"]


def test_the_second_attempt_is_acknowledged():
    batch = create_message_batch("jobs", [{"id": "three", "body": {"number": 3}, "attempts": 2}])
    assert get_queue_result(batch, handle).explicit_acks == ["three"]
'''

_README = """\
# {name}

A queue on Celery, with one SQLite file as its broker.

    cfqueue dev          # runs the worker and restarts it when a file changes
    python app.py        # in a second terminal: sends five messages
    python -m pytest     # tests the handler without a broker (pip install pytest)

* `wrangler.toml` declares the queue and how it is consumed.
* `app.py` has the Celery app and the handler. It is an ordinary Celery program:
  `celery -A app worker` runs it too.
* `cfqueue doctor` looks at all of it and says what to do when something is wrong.

For another broker set `CFQUEUE_BROKER_URL`.
"""


def files(name: str) -> dict[str, str]:
    """File name and text of each file of a new project called ``name``."""
    return {
        "wrangler.toml": _WRANGLER.format(name=name),
        "app.py": _APP,
        "test_handler.py": _TEST,
        "README.md": _README.format(name=name),
    }
