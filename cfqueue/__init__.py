"""Cloudflare Queues for people who run Celery.

    from celery import Celery
    from cfqueue import CFQueue

    app = Celery("shop")
    cf = CFQueue(app)

    @cf.queue("jobs", max_batch_size=10)
    def handle(batch):
        for message in batch:
            message.ack()

    handle.send({"id": 1})

Importing this package loads neither SQLAlchemy nor Flask.
"""

from __future__ import annotations

from cfqueue import errors, transport
from cfqueue.app import CFQueue, shared_queue
from cfqueue.config import Config, ConfigurationWarning
from cfqueue.env import Env
from cfqueue.errors import (
    BrokerError,
    CFQueueError,
    ConfigurationError,
    InvalidMessage,
    QueueConsumerConflict,
    SendUncertain,
)
from cfqueue.messages import Message, MessageBatch
from cfqueue.producer import Queue, SendResult

__version__ = "0.1.0"

__all__ = [
    "BrokerError",
    "CFQueue",
    "CFQueueError",
    "Config",
    "ConfigurationError",
    "ConfigurationWarning",
    "Env",
    "InvalidMessage",
    "Message",
    "MessageBatch",
    "Queue",
    "QueueConsumerConflict",
    "SendResult",
    "SendUncertain",
    "errors",
    "shared_queue",
]

# kombu has no entry point for transports; the alias exists once cfqueue is imported.
transport.register()
