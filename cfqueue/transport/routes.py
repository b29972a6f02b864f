"""Queues, exchanges and bindings, kept in the file so that every process routes alike.

kombu's virtual transports keep them per process: a producer that did not declare a queue itself then
publishes into the void.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from cfqueue import clock
from cfqueue.transport.connection import Access

_CHANGED = "UPDATE cfqueue_parts SET version = version + 1 WHERE name = 'bindings'"
_GENERATION = "SELECT version FROM cfqueue_parts WHERE name = 'bindings'"
_BINDING = (
    "INSERT OR REPLACE INTO cfqueue_bindings(exchange, queue, routing_key, pattern, arguments)"
    " VALUES (?, ?, ?, ?, ?)"
)
_PASSING = (
    "INSERT INTO cfqueue_queues(name, auto_delete, arguments, expires_ms, used_ms, owner)"
    " VALUES (?, 1, ?, ?, ?, ?) ON CONFLICT(name) DO UPDATE"
    " SET used_ms = excluded.used_ms, owner = excluded.owner"
)
_FORMER = (
    "DELETE FROM cfqueue_messages WHERE {leased} AND queue = ?"
    " AND EXISTS (SELECT 1 FROM cfqueue_queues WHERE name = ? AND owner IS NOT ?)"
)
#: Queues past their expiry, and the owner on whose behalf each is used; a living one keeps it.
_EXPIRED = (
    "SELECT name, owner FROM cfqueue_queues WHERE expires_ms IS NOT NULL AND used_ms + expires_ms < :now"
)


@dataclass(frozen=True, slots=True)
class Binding:
    """One route of an exchange; ``pattern`` is a regular expression for topic exchanges."""

    routing_key: str
    pattern: str | None
    queue: str


class Routes:
    """What is declared in one file, with a cache that one small read keeps right."""

    def __init__(self, store: Access) -> None:
        self._store = store
        self._generation = -1
        self._tables: dict[str, tuple[Binding, ...]] = {}
        self._types: dict[str, str] = {}
        self._declared: set[str] = set()

    def _refresh(self) -> None:
        row = self._store.read_one(_GENERATION)
        generation = int(row[0]) if row else 0
        if generation != self._generation:
            self._tables = {}
            self._types = {}
            self._declared = set()
            self._generation = generation

    def table(self, exchange: str) -> tuple[Binding, ...]:
        """The bindings of an exchange as they are now, in all processes."""
        self._refresh()
        found = self._tables.get(exchange)
        if found is None:
            rows = self._store.read_all(
                "SELECT routing_key, pattern, queue FROM cfqueue_bindings WHERE exchange = ?", (exchange,)
            )
            found = self._tables[exchange] = tuple(Binding(*row) for row in rows)
        return found

    def exchange_type(self, exchange: str, default: str = "direct") -> str:
        """direct, topic or fanout."""
        found = self._types.get(exchange)
        if found is None:
            row = self._store.read_one("SELECT type FROM cfqueue_exchanges WHERE name = ?", (exchange,))
            if row is None:
                return default
            found = self._types[exchange] = str(row[0])
        return found

    def exchange(self, name: str) -> dict[str, Any] | None:
        """A declared exchange as kombu describes it; None when there is none."""
        row = self._store.read_one(
            "SELECT type, durable, auto_delete, arguments FROM cfqueue_exchanges WHERE name = ?", (name,)
        )
        if row is None:
            return None
        return {
            "type": row[0],
            "durable": bool(row[1]),
            "auto_delete": bool(row[2]),
            "arguments": json.loads(row[3]),
        }

    def declare_exchange(
        self, name: str, kind: str, *, durable: bool, auto_delete: bool, arguments: dict[str, Any]
    ) -> None:
        """Write an exchange down; an existing one stays as it is."""
        values = (name, kind, int(durable), int(auto_delete), json.dumps(arguments, default=str))
        self._store.write(
            lambda connection: connection.execute(
                "INSERT OR IGNORE INTO cfqueue_exchanges(name, type, durable, auto_delete, arguments)"
                " VALUES (?, ?, ?, ?, ?)",
                values,
            )
        )

    def delete_exchange(self, name: str) -> None:
        """Remove an exchange and its bindings; queues and their messages stay."""
        self._change(
            ("DELETE FROM cfqueue_bindings WHERE exchange = ?", (name,)),
            ("DELETE FROM cfqueue_exchanges WHERE name = ?", (name,)),
        )

    def has_queue(self, name: str) -> bool:
        """Whether a queue was declared, by whatever process."""
        return self._store.read_one("SELECT 1 FROM cfqueue_queues WHERE name = ?", (name,)) is not None

    def queues(self) -> list[str]:
        """The names of all declared queues."""
        return [row[0] for row in self._store.read_all("SELECT name FROM cfqueue_queues ORDER BY name")]

    def declare_queue(
        self, name: str, *, auto_delete: bool = False, arguments: dict[str, Any] | None = None
    ) -> None:
        """Write a queue down; an existing one keeps its arguments."""
        self._refresh()
        if name in self._declared or self.has_queue(name):
            self._declared.add(name)
            return
        values = (name, int(auto_delete), json.dumps(arguments or {}, default=str), clock.now_ms())
        self._store.write(
            lambda connection: connection.execute(
                "INSERT OR IGNORE INTO cfqueue_queues(name, auto_delete, arguments, used_ms)"
                " VALUES (?, ?, ?, ?)",
                values,
            )
        )
        self._declared.add(name)

    def declare_expiring(self, name: str, owner: str, arguments: dict[str, Any], expires_ms: int) -> None:
        """Write down a queue that goes ``expires_ms`` after ``owner`` died or let it go.

        What another owner left in it is removed: a worker that takes the name of a dead one must not
        obey commands that were meant for that one.
        """
        values = (name, json.dumps(arguments, default=str), expires_ms, clock.now_ms(), owner)
        self._store.write(
            lambda connection: _transaction(
                connection,
                [
                    *(
                        (
                            _FORMER.format(leased=leased),
                            (name, name, owner),
                        )
                        for leased in ("owner IS NULL", "owner IS NOT NULL")
                    ),
                    (
                        _PASSING,
                        values,
                    ),
                ],
            )
        )

    def let_go(self, names: list[str], owner: str) -> None:
        """``owner`` uses these queues no more; they go when their expiry has passed."""
        values = {"now": clock.now_ms(), "names": json.dumps(names), "owner": owner}
        self._store.write(
            lambda connection: connection.execute(
                "UPDATE cfqueue_queues SET used_ms = :now, owner = NULL WHERE owner = :owner"
                " AND name IN (SELECT value FROM json_each(:names))",
                values,
            )
        )

    def arguments(self, queue: str) -> dict[str, Any]:
        """The arguments a queue was declared with; empty when it was not."""
        row = self._store.read_one("SELECT arguments FROM cfqueue_queues WHERE name = ?", (queue,))
        found = json.loads(row[0]) if row else {}
        return found if isinstance(found, dict) else {}

    def bind(
        self, queue: str, exchange: str, routing_key: str, pattern: str | None, arguments: Any = None
    ) -> None:
        """Route ``routing_key`` of ``exchange`` to ``queue``."""
        if Binding(routing_key, pattern, queue) in self.table(exchange):
            return
        self._change(
            (
                _BINDING,
                (exchange, queue, routing_key, pattern, json.dumps(arguments, default=str)),
            )
        )

    def unbind(self, queue: str, exchange: str, routing_key: str) -> None:
        """Remove one route."""
        self._change(
            (
                "DELETE FROM cfqueue_bindings WHERE exchange = ? AND queue = ? AND routing_key = ?",
                (exchange, queue, routing_key),
            )
        )

    def bindings_of(self, queue: str) -> list[tuple[str, str]]:
        """The (exchange, routing key) pairs that lead to a queue."""
        return self._store.read_all(
            "SELECT exchange, routing_key FROM cfqueue_bindings WHERE queue = ?", (queue,)
        )

    def all_bindings(self) -> list[tuple[str, str, str]]:
        """Every (queue, exchange, routing key)."""
        return self._store.read_all("SELECT queue, exchange, routing_key FROM cfqueue_bindings")

    def delete_queue(self, name: str) -> None:
        """Remove a queue with its routes and all its messages, leased ones too."""
        self._change(*_deletion(name))

    def delete_if_deserted(self, name: str) -> None:
        """Remove a queue whose last consumer left, if it was declared to go then and has no expiry."""
        row = self._store.read_one(
            "SELECT 1 FROM cfqueue_queues WHERE name = ? AND auto_delete AND expires_ms IS NULL", (name,)
        )
        if row is not None:
            self.delete_queue(name)

    def sweep(self, living: set[str]) -> None:
        """Remove queues past their expiry, except those of ``living`` owners."""
        now = {"now": clock.now_ms()}

        def expired(rows: list[Any]) -> list[str]:
            return [name for name, owner in rows if owner not in living]

        if not expired(self._store.read_all(_EXPIRED, now)):
            return

        def action(connection: sqlite3.Connection) -> None:
            # Asked again under the lock: somebody may have declared one of them just now.
            for name in expired(connection.execute(_EXPIRED, now).fetchall()):
                _transaction(connection, [*_deletion(name), (_CHANGED, ())])

        self._store.write(action)

    def _change(self, *steps: tuple[str, tuple[Any, ...]]) -> None:
        self._store.write(lambda connection: _transaction(connection, [*steps, (_CHANGED, ())]))


def _deletion(name: str) -> list[tuple[str, tuple[Any, ...]]]:
    return [
        ("DELETE FROM cfqueue_bindings WHERE queue = ?", (name,)),
        ("DELETE FROM cfqueue_queues WHERE name = ?", (name,)),
        ("DELETE FROM cfqueue_messages WHERE owner IS NULL AND queue = ?", (name,)),
        ("DELETE FROM cfqueue_messages WHERE owner IS NOT NULL AND queue = ?", (name,)),
    ]


def _transaction(connection: sqlite3.Connection, steps: list[tuple[str, tuple[Any, ...]]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement, values in steps:
            connection.execute(statement, values)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
