"""kombu's channel on the Store: publishing, routing, consuming, settling."""

# ruff: noqa: ARG002 - the signatures are kombu's
from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from kombu.transport import virtual

from cfqueue import clock
from cfqueue.transport.declarations import Declarations, Line
from cfqueue.transport.engine import UNLIMITED
from cfqueue.transport.operations import Ack, Claim, Lease, Leased, Move, Op, Put, Release
from cfqueue.transport.wire import payload_of, queue_of, row_of


class QoS:
    """What a channel has delivered and not yet settled. Acks may come from any thread."""

    def __init__(self, channel: Channel, prefetch_count: int = 0) -> None:
        self.channel = channel
        self.prefetch_count = prefetch_count
        #: Lease -> queue, in order of delivery.
        self.unacked: dict[Lease, str] = {}

    def can_consume(self) -> bool:
        """Whether the prefetch limit leaves room."""
        return not self.prefetch_count or len(self.unacked) < self.prefetch_count

    def can_consume_max_estimate(self) -> int:
        """How many more messages may be delivered."""
        if not self.prefetch_count:
            return UNLIMITED
        return max(self.prefetch_count - len(self.unacked), 0)

    def append(self, message: Any, delivery_tag: Lease) -> None:
        """Note a delivery."""
        self.unacked[delivery_tag] = message.delivery_info.get("queue", "")

    def ack(self, delivery_tag: Lease) -> None:
        """The message is done. What is not ours (a second ack, another channel's tag) is ignored."""
        if self.unacked.pop(delivery_tag, None) is not None:
            self.channel.settle(Ack([delivery_tag]))

    def reject(self, delivery_tag: Lease, requeue: bool = False) -> None:
        """Give back, or remove: to the queue's dead-letter routing key if it was declared with one."""
        queue = self.unacked.pop(delivery_tag, None)
        if queue is not None:
            self.channel.settle(
                Release([delivery_tag]) if requeue else self.channel.removal(queue, delivery_tag)
            )

    def restore_unacked(self) -> list[Any]:
        """Give back everything that was not settled, at once."""
        leases = list(self.unacked)
        self.unacked.clear()
        if leases:
            self.channel.store.submit([Release(leases)])
        return []

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """The same, under the name that kombu uses when a channel closes."""
        self.restore_unacked()

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Not needed: leases of the dead are returned by the store's keeper."""


# kombu is half typed: its classes are untyped here on purpose.
_Base: Any = virtual.Channel


class Channel(Declarations, _Base):  # type: ignore[misc]
    """One kombu channel. Declarations live in the file; deliveries come through the engine."""

    QoS = QoS
    supports_fanout = True
    body_encoding = None
    from_transport_options = ("deadletter_queue",)

    connection: Line
    closed: bool
    _active_queues: list[str]

    def __init__(self, connection: Line, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.store = connection.store
        self._pid = os.getpid()
        self._no_ack: dict[str, bool] = {}
        self._pending = 0
        self._intake = threading.Lock()

    # Publishing

    def basic_publish(self, message: dict[str, Any], exchange: str, routing_key: str, **kwargs: Any) -> None:
        """Store a message in every queue it is routed to; durable when this returns."""
        info = message["properties"].setdefault("delivery_info", {})
        info["exchange"] = exchange
        info["routing_key"] = routing_key
        # A plain program's send_task("cfqueue.queue.jobs", …) names a queue of ours by its task, whatever
        # Celery makes of its routing options (docs/decisions/0007).
        ours = queue_of(message["headers"])
        queues = self._routed(exchange, routing_key) if ours is None else [ours]
        if queues:
            self.store.submit([Put([row_of(message, queue) for queue in queues])])

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        self.store.submit([Put([row_of(message, queue)])])

    # Consuming

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], consumer_tag: str, **kwargs: Any
    ) -> None:
        """Deliver messages of ``queue`` to ``callback`` until cancelled."""

        def deliver(leased: Leased) -> Any:
            message = self._message(leased, consumer_tag)
            if not no_ack:
                self.qos.unacked[leased.lease] = queue
            return callback(message)

        with self._intake:
            self._tag_to_queue[consumer_tag] = queue
            self._consumers.add(consumer_tag)
            self._active_queues = [*self._active_queues, queue]
            self._no_ack[queue] = no_ack
        self.connection.consumes(self, queue, deliver)

    def _message(self, leased: Leased, consumer_tag: str | None = None) -> Any:
        payload = payload_of(leased)
        if consumer_tag is not None:
            payload["properties"]["delivery_info"]["consumer_tag"] = consumer_tag
        return self.Message(payload, channel=self)

    def basic_cancel(self, consumer_tag: str) -> None:
        """End a consumer; what waits for it undelivered goes back."""
        if consumer_tag not in self._consumers:
            return
        with self._intake:
            self._consumers.remove(consumer_tag)
            queue = self._tag_to_queue.pop(consumer_tag, None)
            if queue is None:
                return
            remaining = list(self._active_queues)
            if queue in remaining:
                remaining.remove(queue)
            self._active_queues = remaining
            self._no_ack.pop(queue, None)
        if self._pid == os.getpid():
            self.connection.cancelled(self, queue)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """One message, or None when none is due."""
        owner = self.store.owner().id
        if not self.store.is_waiting(queue, clock.now_ms()):
            return None
        (found,) = self.store.submit([Claim(owner, queue, 1, None)])
        if not found:
            return None
        message = self._message(found[0])
        if no_ack:
            self.store.submit([Ack([found[0].lease])])
        else:
            self.qos.unacked[found[0].lease] = queue
        return message

    def drain_events(self, timeout: float | None = None, callback: Any = None) -> Any:
        """Deliver one message of this connection; socket.timeout when none came."""
        return self.connection.drain_events(self.connection, timeout=timeout)

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Limit how many unsettled messages the channel holds; 0: no limit."""
        self.qos.prefetch_count = prefetch_count
        self.connection.look_again()

    # The engine's side (see engine.Intake); called on its thread

    def appetite(self) -> tuple[Sequence[str], int, int]:
        """What the channel may still take."""
        prefetch = self.qos.prefetch_count
        limit = prefetch or UNLIMITED
        held = self._pending + (len(self.qos.unacked) if prefetch else 0)
        return self._active_queues, limit - held, prefetch

    def keeps(self, queue: str) -> bool:
        """False for a consumer without acks."""
        return not self._no_ack.get(queue, False)

    def receive(self, queue: str, messages: list[Leased]) -> bool:
        """Put claimed messages into the inbox of the connection."""
        with self._intake:
            if self.closed or queue not in self._active_queues:
                return False
            self._pending += len(messages)
            self.connection.inbox.extend((self, queue, message) for message in messages)
        self.connection.signal()
        return True

    def taken(self) -> None:
        """A message left the inbox."""
        with self._intake:
            self._pending -= 1
            starved = self._pending == 0 and not self.qos.prefetch_count
        if starved:
            self.connection.look_again()

    # Settling

    def settle(self, op: Op) -> None:
        """Have a settle committed by the engine, or here when this connection has none."""
        if self._pid == os.getpid():
            self.connection.settle(op)

    def removal(self, queue: str, lease: Lease) -> Op:
        """How a rejected message leaves: AMQP's dead-letter arguments are honoured for plain routing keys."""
        arguments = self.store.routes.arguments(queue) if queue else {}
        target = arguments.get("x-dead-letter-routing-key")
        if not target or arguments.get("x-dead-letter-exchange"):
            return Ack([lease])
        return Move([(*lease, str(target), clock.now_ms(), {})])

    def close(self) -> None:
        """Cancel all consumers and give back what was not settled. In a forked child: forget, only."""
        if self.closed:
            return
        connection = self.connection
        if self._pid == os.getpid():
            for tag in list(self._consumers):
                self.basic_cancel(tag)
            with self._intake:
                self.closed = True
            connection.leaves(self)
            if self._qos is not None:
                self._qos.restore_unacked()
        self.closed = True
        if connection is not None:
            connection.close_channel(self)
