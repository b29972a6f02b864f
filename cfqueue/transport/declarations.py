"""The declaring half of kombu's channel: exchanges, queues and bindings live in the file, for all processes."""

# ruff: noqa: ARG002 - the signatures are kombu's
from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from amqp.protocol import queue_declare_ok_t  # type: ignore[import-untyped]
from kombu.exceptions import ChannelError
from kombu.transport.base import to_rabbitmq_queue_arguments
from kombu.transport.virtual.base import NOT_EQUIVALENT_FMT, NotEquivalentError
from kombu.utils.uuid import uuid

from cfqueue.transport.operations import Leased, Op
from cfqueue.transport.store import Store

_log = logging.getLogger("cfqueue.transport")
_compiled = lru_cache(maxsize=1024)(re.compile)


class Line(Protocol):
    """What a Transport shows to its channels."""

    store: Store
    inbox: deque[tuple[Any, str, Leased]]

    def consumes(self, channel: Any, queue: str, deliver: Callable[[Leased], Any]) -> None:
        """A channel has a new consumer."""

    def cancelled(self, channel: Any, queue: str) -> None:
        """A consumer has gone."""

    def leaves(self, channel: Any) -> None:
        """A channel closes."""

    def close_channel(self, channel: Any) -> None:
        """A channel has closed."""

    def signal(self) -> None:
        """The inbox has something."""

    def look_again(self) -> None:
        """The appetite of a channel has changed."""

    def settle(self, op: Op) -> None:
        """Commit a settle soon."""

    def declare_expiring(self, queue: str, arguments: dict[str, Any], expires_ms: int) -> None:
        """A queue that goes with this process."""

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Deliver one message."""


class Declarations:
    """Mixed into `channel.Channel`; what it needs of a channel stands first."""

    store: Store
    connection: Line
    exchange_types: dict[str, Any]
    deadletter_queue: str | None

    # Routing

    def _routed(self, exchange: str, routing_key: str) -> Sequence[str]:
        if not exchange:
            return (routing_key,)
        routes = self.store.routes
        table = routes.table(exchange)
        kind = routes.exchange_type(exchange)
        if kind == "fanout":
            return sorted({binding.queue for binding in table})
        if kind == "topic":
            found = {
                binding.queue
                for binding in table
                if binding.pattern and _compiled(binding.pattern).match(routing_key)
            }
        else:
            found = {binding.queue for binding in table if binding.routing_key == routing_key}
        if not found and self.deadletter_queue:
            return (self.deadletter_queue,)
        if not found:
            _log.debug(
                "No queue is bound to exchange %r for %r: dropped, as AMQP does.", exchange, routing_key
            )
        return sorted(found)

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> list[str]:
        return list(self._routed(exchange, routing_key)) or ([default] if default else [])

    # Declaring

    def exchange_declare(
        self,
        exchange: str | None = None,
        type: str = "direct",  # noqa: A002 - kombu's name
        durable: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
        nowait: bool = False,
        passive: bool = False,
    ) -> None:
        """Declare an exchange for every process that uses the file."""
        kind = type or "direct"
        name = exchange or f"amq.{kind}"
        found = self.store.routes.exchange(name)
        if found is not None:
            if not passive and not self.exchange_types[kind].equivalent(
                found, name, kind, durable, auto_delete, arguments
            ):
                raise NotEquivalentError(NOT_EQUIVALENT_FMT.format(name, self.store.path))
        elif passive:
            raise ChannelError(
                f"NOT_FOUND - no exchange {name!r} in {self.store.path}",
                (50, 10), "Channel.exchange_declare", "404",
            )  # fmt: skip
        else:
            self.store.routes.declare_exchange(
                name, kind, durable=durable, auto_delete=auto_delete, arguments=arguments or {}
            )

    def exchange_delete(self, exchange: str, if_unused: bool = False, nowait: bool = False) -> None:
        """Remove an exchange and its bindings."""
        self.store.routes.delete_exchange(exchange)

    def prepare_queue_arguments(self, arguments: dict[str, Any] | None, **kwargs: Any) -> dict[str, Any]:
        """Translate kombu's ``expires`` and the like in AMQP's spelling."""
        return dict(to_rabbitmq_queue_arguments(arguments or {}, **kwargs))

    def queue_declare(
        self,
        queue: str | None = None,
        passive: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Declare a queue. Only a passive declaration counts its messages: counting walks an index."""
        name = queue or f"amq.gen-{uuid()}"
        if passive:
            if not self._has_queue(name):
                raise ChannelError(
                    f"NOT_FOUND - no queue {name!r} in {self.store.path}",
                    (50, 10), "Channel.queue_declare", "404",
                )  # fmt: skip
            return queue_declare_ok_t(name, self._size(name), 0)
        arguments = arguments or {}
        expires = arguments.get("x-expires")
        if isinstance(expires, int) and expires > 0:
            self.connection.declare_expiring(name, arguments, expires)
        else:
            self.store.routes.declare_queue(name, auto_delete=auto_delete, arguments=arguments)
        return queue_declare_ok_t(name, 0, 0)

    def queue_bind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Bind a queue for every process that uses the file."""
        name = exchange or "amq.direct"
        kind = self.store.routes.exchange_type(name)
        _, pattern, _ = self.exchange_types[kind].prepare_bind(queue, name, routing_key, arguments)
        self.store.routes.bind(queue, name, routing_key, pattern, arguments)

    def queue_unbind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remove a binding."""
        self.store.routes.unbind(queue, exchange or "amq.direct", routing_key)

    def queue_delete(
        self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any
    ) -> None:
        """Remove a queue with its bindings and messages."""
        if not (if_empty and self._size(queue)):
            self.store.routes.delete_queue(queue)

    def after_reply_message_received(self, queue: str) -> None:
        """Keep the reply queue: kombu declares it once per connection and would never again get a reply."""

    def get_table(self, exchange: str) -> list[tuple[str, str | None, str]]:
        """The bindings of an exchange, from all processes."""
        return [
            (binding.routing_key, binding.pattern, binding.queue)
            for binding in self.store.routes.table(exchange)
        ]

    def get_exchanges(self) -> list[str]:
        """The names of declared exchanges."""
        return [row[0] for row in self.store.read_all("SELECT name FROM cfqueue_exchanges")]

    def list_bindings(self) -> Iterable[tuple[str, str, str]]:
        """Every (queue, exchange, routing key)."""
        return self.store.routes.all_bindings()

    def typeof(self, exchange: str, default: str = "direct") -> Any:
        """Kombu's object for the type of an exchange."""
        return self.exchange_types[self.store.routes.exchange_type(exchange, default)]

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return self.store.routes.has_queue(queue)

    def _size(self, queue: str) -> int:
        return self.store.length(queue)

    def _purge(self, queue: str) -> int:
        return self.store.purge(queue)

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        self.store.routes.declare_queue(queue)
