"""Store a whole batch with one statement, so that a message that is delivered twice is stored once.

    celery -A bulk_insert worker      # in one terminal
    python bulk_insert.py             # in another

Delivery is at least once. The id of a message is the same on every delivery: as a primary key it makes
the handler idempotent.
"""

import sqlite3
from contextlib import closing

from cfqueue import CFQueue
from cfqueue.app import home

cf = CFQueue()
app = cf.app


def database():
    home().mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(home() / "example-orders.db", isolation_level=None)
    connection.execute("CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, total INTEGER)")
    return closing(connection)


@cf.queue("example-orders", max_batch_size=100, max_batch_timeout=1)
def store(batch):
    rows = [(message.id, message.body["total"]) for message in batch]
    with database() as db:
        db.execute("BEGIN")
        db.executemany("INSERT INTO orders VALUES (?, ?) ON CONFLICT DO NOTHING", rows)
        db.execute("COMMIT")
    print(f"stored {len(rows)} orders with one transaction")


if __name__ == "__main__":
    store.send_batch([{"body": {"total": number}} for number in range(50)])

# Output of the worker:
# stored 50 orders with one transaction
