"""A message that always fails ends in the dead-letter queue, which is an ordinary queue with a handler.

    celery -A retries_and_dead_letters worker      # in one terminal
    python retries_and_dead_letters.py             # in another

Without `dead_letter_queue=` it would be called `example-parse-dlq`.
"""

from cfqueue import CFQueue

cf = CFQueue()
app = cf.app


@cf.queue("example-parse", max_batch_timeout=0, max_retries=2, dead_letter_queue="example-parse-failed")
def parse(batch):
    for message in batch:
        print(f"parsing {message.body!r}, attempt {message.attempts}")
        int(message.body)
        message.ack()  # what was acked stays acked when a later message raises


@cf.queue("example-parse-failed", max_batch_timeout=0, dead_letter_queue=None)
def bury(batch):
    for message in batch:
        why = message.headers
        print(f"dead letter {message.body!r}: {why['cfq-reason']}, {why['cfq-failed-attempts']} attempts")
        print(f"last error: {why['cfq-error-type']}: {why['cfq-error-message']}")


if __name__ == "__main__":
    parse.send("12x")

# Output of the worker:
# parsing '12x', attempt 1
# parsing '12x', attempt 2
# parsing '12x', attempt 3
# dead letter '12x': retries_exhausted, 3 attempts
# last error: ValueError: invalid literal for int() with base 10: '12x'
