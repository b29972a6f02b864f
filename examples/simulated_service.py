"""The whole queue service in one process, with a clock that you move: when is what delivered?

    python simulated_service.py

A handler takes no time; the clock stands still until it is moved.
"""

from cfqueue.testing import Simulator


def handle(batch):
    for message in batch:
        if message.body == "broken":
            message.retry()


def main():
    sim = Simulator()
    orders = sim.queue("orders")
    sim.consumer(
        "orders",
        handle,
        max_batch_size=2,
        max_batch_timeout=5,
        max_retries=1,
        retry_delay=30,
        dead_letter_queue="orders-dlq",
    )
    orders.send("fine")
    orders.send("broken", delay_seconds=2)
    sim.advance(60)
    for each in sim.deliveries:
        print(f"{each.at:4.0f} s  {', '.join(f'{m.body} (attempt {m.attempts})' for m in each.messages)}")
    for message in sim.queue("orders-dlq").peek():
        print(f"dead: {message.body}, {message.headers['cfq-reason']}")


if __name__ == "__main__":
    main()

# Output:
#    2 s  fine (attempt 1), broken (attempt 1)
#   37 s  broken (attempt 2)
# dead: broken, retries_exhausted
