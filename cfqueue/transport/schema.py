"""The tables of the embedded broker, and how a file comes to have them.

One row is one message. `owner` says who leases it, `batch` that the lease was started, `token` grows
with every lease and every return, so that whoever settles with an old token settles nothing. Ids are
AUTOINCREMENT: a reused id with a fresh token could be hit by a stale ack.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy import Column, Index, Integer, LargeBinary, MetaData, Table, Text, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from cfqueue.errors import BrokerUnavailable

#: Grows when a table changes; a file that says more was written by a newer cfqueue.
VERSION = 1

metadata = MetaData()

messages = Table(
    "cfqueue_messages",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("queue", Text, nullable=False),
    Column("suspicion", Integer, nullable=False, server_default=text("0")),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    Column("due_ms", Integer, nullable=False),
    Column("token", Integer, nullable=False, server_default=text("0")),
    Column("attempts", Integer, nullable=False, server_default=text("1")),
    Column("owner", Text),
    Column("batch", Text),
    Column("crash_delay_ms", Integer, nullable=False, server_default=text("0")),
    Column("timestamp_ms", Integer, nullable=False),
    Column("expires_ms", Integer),
    Column("first_failed_ms", Integer),
    Column("size", Integer, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("content_type", Text),
    Column("content_encoding", Text),
    Column("headers", Text, nullable=False),
    Column("properties", Text),
    Column("body", LargeBinary),
    sqlite_autoincrement=True,
)

# Conditions are literals: SQLite does not use a partial index for a bound parameter. The ready index
# ends with what a backlog needs, so that counting 100,000 waiting rows touches no body.
Index(
    "cfqueue_messages_ready",
    messages.c.queue,
    messages.c.suspicion,
    messages.c.priority,
    messages.c.due_ms,
    messages.c.id,
    messages.c.size,
    messages.c.timestamp_ms,
    sqlite_where=text("owner IS NULL"),
)
Index("cfqueue_messages_leased", messages.c.owner, sqlite_where=text("owner IS NOT NULL"))
Index("cfqueue_messages_started", messages.c.queue, messages.c.batch, sqlite_where=text("batch IS NOT NULL"))

queues = Table(
    "cfqueue_queues",
    metadata,
    Column("name", Text, primary_key=True),
    Column("auto_delete", Integer, nullable=False, server_default=text("0")),
    Column("arguments", Text, nullable=False, server_default=text("'{}'")),
    # Milliseconds after which the queue goes when no living process uses it; NULL stays for ever.
    Column("expires_ms", Integer),
    Column("used_ms", Integer, nullable=False),
    Column("owner", Text),
)

exchanges = Table(
    "cfqueue_exchanges",
    metadata,
    Column("name", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("durable", Integer, nullable=False),
    Column("auto_delete", Integer, nullable=False),
    Column("arguments", Text, nullable=False),
)

bindings = Table(
    "cfqueue_bindings",
    metadata,
    Column("exchange", Text, primary_key=True),
    Column("queue", Text, primary_key=True),
    Column("routing_key", Text, primary_key=True),
    Column("pattern", Text),
    Column("arguments", Text),
)
Index("cfqueue_bindings_queue", bindings.c.queue)

# One row per part of cfqueue that keeps tables in this file; `bindings` counts changes of routes.
parts = Table(
    "cfqueue_parts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
)

_DIALECT = sqlite.dialect()


def statements() -> list[str]:
    """The DDL, compiled once by SQLAlchemy for SQLite."""
    compiled = []
    for table in metadata.sorted_tables:
        compiled.append(str(CreateTable(table, if_not_exists=True).compile(dialect=_DIALECT)))
        compiled.extend(
            str(CreateIndex(index, if_not_exists=True).compile(dialect=_DIALECT))
            for index in sorted(table.indexes, key=lambda index: str(index.name))
        )
    return compiled


def version_of(connection: sqlite3.Connection) -> int:
    """The schema version of a file; 0 when it has no tables of ours yet."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'cfqueue_parts'").fetchone()
    if found is None:
        return 0
    row = connection.execute("SELECT version FROM cfqueue_parts WHERE name = 'transport'").fetchone()
    return int(row[0]) if row else 0


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Bring a file to `VERSION`; the caller holds the write lock. Raises BrokerUnavailable if newer."""
    found = version_of(connection)
    if found > VERSION:
        raise BrokerUnavailable(
            f"{path} was written by a newer cfqueue (schema {found}; this one knows {VERSION})."
            " Upgrade cfqueue here, or name another file."
        )
    connection.execute("PRAGMA journal_mode=WAL")
    if found == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements():
            connection.execute(statement)
        connection.execute(
            "INSERT INTO cfqueue_parts(name, version) VALUES ('transport', ?), ('bindings', 0)"
            " ON CONFLICT(name) DO UPDATE SET version = excluded.version WHERE name = 'transport'",
            (VERSION,),
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
