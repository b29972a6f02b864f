"""One message kills its process every time. Its neighbours are done, and it ends in the dead-letter queue.

    celery -A poison_message worker --concurrency 1      # in one terminal
    python poison_message.py                             # in another

The pool is prefork, Celery's default: only there does the worker survive the death of a handler's process.
"""

import os

from cfqueue import CFQueue

cf = CFQueue()
app = cf.app


@cf.queue("example-poison", max_batch_size=10, max_batch_timeout=1, max_retries=1, retry_delay=1)
def handle(batch):
    for message in batch:
        if message.body == "poison":
            os._exit(1)  # as a segmentation fault or the out-of-memory killer would
    print(f"done: {', '.join(message.body for message in batch)}")


@cf.queue("example-poison-dlq", max_batch_timeout=0, dead_letter_queue=None)
def bury(batch):
    for message in batch:
        why = message.headers
        print(f"dead letter: {message.body}, {why['cfq-reason']} after {why['cfq-failed-attempts']} attempts")


if __name__ == "__main__":
    handle.send_batch([{"body": body} for body in ("a", "b", "poison", "c")])

# Output of the worker, between its own lines about the processes that died:
# done: a
# done: b
# done: c
# dead letter: poison, crashed after 2 attempts
