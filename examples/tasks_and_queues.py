"""Ordinary Celery tasks beside a queue, in one app, one worker and one file.

    celery -A tasks_and_queues worker      # in one terminal
    python tasks_and_queues.py             # in another

The handler starts a task for each message; tasks run as they always did.
"""

from celery import Celery

from cfqueue import CFQueue
from cfqueue.app import home

home().mkdir(parents=True, exist_ok=True)
app = Celery("shop", broker=f"cfqueue+sqlite:///{home() / 'example-shop.db'}")
cf = CFQueue(app)


@app.task
def make_invoice(order):
    print(f"invoice for order {order}")


@cf.queue("example-shop-orders", max_batch_size=10, max_batch_timeout=2)
def handle(batch):
    print(f"{len(batch)} orders")
    for message in batch:
        make_invoice.delay(message.body["order"])
        message.ack()


if __name__ == "__main__":
    handle.send({"order": 1})
    handle.delay({"order": 2})  # Celery's way to send; returns an AsyncResult
    app.send_task("cfqueue.queue.example-shop-orders", [{"order": 3}])  # what other programs can do

# Output of the worker, the invoices in any order:
# 3 orders
