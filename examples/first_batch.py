"""A queue, a batch, an outcome for each message.

    celery -A first_batch worker      # in one terminal
    python first_batch.py             # in another

The worker can be started before or after: the messages wait on disk.
"""

from cfqueue import CFQueue

cf = CFQueue()
app = cf.app


@cf.queue("example-first", max_batch_size=10, max_batch_timeout=1)
def handle(batch):
    print(f"a batch of {len(batch)}")
    for message in batch:
        if message.body == 3 and message.attempts == 1:
            print(f"message {message.body}: again in 1 s")
            message.retry(delay_seconds=1)
        else:
            print(f"message {message.body}: done on attempt {message.attempts}")
            message.ack()


if __name__ == "__main__":
    handle.send_batch([{"body": number} for number in range(1, 5)])

# Output of the worker:
# a batch of 4
# message 1: done on attempt 1
# message 2: done on attempt 1
# message 3: again in 1 s
# message 4: done on attempt 1
# a batch of 1
# message 3: done on attempt 2
