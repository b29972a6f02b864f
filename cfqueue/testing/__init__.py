"""Run handlers without a broker and without a worker, with a clock moved by hand.

One batch, and what the handler did with it (Cloudflare's own test utilities, in Python)::

    batch = create_message_batch("jobs", [{"id": "1", "body": {"n": 1}}])
    result = get_queue_result(batch, handle)
    assert result.explicit_acks == ["1"]

The whole service, with batching, delays, retries and dead letters::

    sim = Simulator()
    jobs = sim.queue("jobs")
    sim.consumer("jobs", handle, max_batch_size=2, dead_letter_queue="jobs-dlq")
    jobs.send({"n": 1})
    sim.advance(5)
    assert [m.body for m in sim.deliveries[0].messages] == [{"n": 1}]

Bodies are encoded and decoded, limits checked, batches formed and outcomes decided by the very code that the
producer and the worker use.
"""

from cfqueue.messages.context import Context
from cfqueue.testing.handlers import (
    QueueResult,
    RetryBatch,
    RetryMessage,
    create_message_batch,
    get_queue_result,
)
from cfqueue.testing.lines import Delivered, Dropped, Seen
from cfqueue.testing.simulator import Simulator

__all__ = [
    "Context",
    "Delivered",
    "Dropped",
    "QueueResult",
    "RetryBatch",
    "RetryMessage",
    "Seen",
    "Simulator",
    "create_message_batch",
    "get_queue_result",
]
