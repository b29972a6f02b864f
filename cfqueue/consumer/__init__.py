"""The worker side: from messages at the broker to settled outcomes.

Where to look:

- a batch is **formed** in ``lines.py`` (one ``Line`` per queue, with the pure ``Batcher``);
- a batch is **run** in ``child.py``, inside the pool;
- an outcome is **decided** in ``cfqueue.messages.settle``;
- an outcome is made durable and the message **acked** in ``settlement.py``;
- what happens when a child dies is in ``isolation.py``, after the rules in ``cfqueue.messages.crash``.

Law of this room: everything but ``step.py`` and ``pool.py`` lives on cfqueue's own I/O thread
(``loop.py``) and never touches Celery's connection, loop or queues.
"""
