"""What can be observed. Observers subscribe here; nothing in cfqueue depends on who listens.

They are ordinary Celery signals (``signal.connect(receiver)``). Receivers run in the worker's main
process, on cfqueue's own I/O thread: they must be quick and must not raise.
"""

from __future__ import annotations

from celery.utils.dispatch import Signal

#: A batch was handed to the pool. Arguments: ``queue``, ``batch_id``, ``size``, ``suspicion``.
batch_started = Signal(name="batch_started", providing_args={"queue", "batch_id", "size", "suspicion"})

#: The outcomes of a batch are durable. Arguments: ``queue``, ``batch_id``, ``acked``, ``retried``,
#: ``dead_lettered`` (reason -> count), ``dropped``, ``runtime`` (seconds in the handler).
batch_settled = Signal(
    name="batch_settled",
    providing_args={"queue", "batch_id", "acked", "retried", "dead_lettered", "dropped", "runtime"},
)

#: A message went to a dead-letter queue. Arguments: ``queue``, ``message_id``, ``reason``, ``to``.
message_dead_lettered = Signal(
    name="message_dead_lettered", providing_args={"queue", "message_id", "reason", "to"}
)
