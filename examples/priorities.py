"""Higher priorities are delivered first; a message that has expired is not delivered at all.

    python priorities.py                                # first: the messages wait
    celery -A priorities worker --concurrency 1         # then a worker takes them

Within one priority the older message goes first.
"""

from cfqueue import CFQueue

cf = CFQueue()
app = cf.app


@cf.queue("example-priorities", max_batch_size=1, max_batch_timeout=0)
def handle(batch):
    for message in batch:
        print(f"handled: {message.body}")


@cf.queue("example-priorities-dlq", max_batch_timeout=0, dead_letter_queue=None)
def bury(batch):
    for message in batch:
        print(f"not handled: {message.body} ({message.headers['cfq-reason']})")


if __name__ == "__main__":
    handle.send("the newsletter", priority=0)
    handle.send("an invoice", priority=5)
    handle.send("a password mail", priority=9)
    handle.send("a code that is valid for a moment", expires=0.1)

# Output of the worker, the expired message at any place:
# handled: a password mail
# handled: an invoice
# handled: the newsletter
