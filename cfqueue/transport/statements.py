"""The SQL of the hot path, written out once.

The driver runs these texts directly: SQLAlchemy's layer costs a third of the rate of single sends.
Each is one step for SQLite, however many rows it touches: `sqlite3` gives up the GIL at every step,
and with a busy thread in the process each step then costs up to 5 ms under the write lock. So rows
are fetched as one JSON text, and row sets are passed as one JSON text.
"""

from __future__ import annotations

from functools import lru_cache

#: The columns that a Put fills, in the order of `operations.Row`.
PUT_COLUMNS = (
    "queue, headers, properties, body, size, priority, due_ms, timestamp_ms, expires_ms, message_id,"
    " content_type, content_encoding"
)
_PUT_VALUES = "(?,?,?,?,?,?,?,?,?,?,?,?)"
#: Most rows in one INSERT: 12 parameters each, below SQLite's limit of 32,766.
PUT_ROWS = 200

BEGIN = "BEGIN IMMEDIATE"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"
CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"


@lru_cache(maxsize=PUT_ROWS)
def put(rows: int) -> str:
    """Insert ``rows`` messages; ids are consecutive and end at the last inserted one."""
    return f"INSERT INTO cfqueue_messages({PUT_COLUMNS}) VALUES {','.join([_PUT_VALUES] * rows)}"  # noqa: S608


def _row_json(token: str, headers: str, properties: str) -> str:
    """One row as the text of a JSON list, in the order of `operations.Leased`."""
    return f"""rtrim(json_array(id, {token}, queue, attempts, suspicion, priority, due_ms, timestamp_ms, expires_ms,
 first_failed_ms, size, message_id, content_type, content_encoding), ']') || ',' || {headers} || ',' || {properties}
 || ',' || CASE typeof(body) WHEN 'blob' THEN '{{"hex":"' || hex(body) || '"}}' ELSE json_quote(body) END || ']'"""


# Headers and properties are JSON that we wrote; they are spliced as they are, not parsed by SQLite.
_SPLICED = _row_json("token + 1", "headers", "ifnull(properties, 'null')")

# Ten ranges, one per priority, each a seek in the index: a single ordered query walked past every
# delayed row (7 ms at 100,000). CROSS JOIN fixes the nesting, hence the order.
_PRIORITIES = "(VALUES (9),(8),(7),(6),(5),(4),(3),(2),(1),(0))"
_SUSPICIONS = "(VALUES (0),(1),(2))"

_RUNNING = "(SELECT count(DISTINCT batch) FROM cfqueue_messages WHERE queue = :queue AND batch IS NOT NULL)"


def _choice(suspicion: str, suspicions: str, columns: str, more: str = "") -> str:
    return (
        f"SELECT {columns} FROM {_PRIORITIES} AS p {suspicions}"  # noqa: S608
        " CROSS JOIN cfqueue_messages AS m INDEXED BY cfqueue_messages_ready"
        f" WHERE m.owner IS NULL AND m.queue = :queue AND m.suspicion = {suspicion}"
        f" AND m.priority = p.column1 AND m.due_ms <= :now {more} LIMIT :limit"
    )


def _chosen(choice: str) -> str:
    return (
        f"SELECT count(*), '[' || group_concat(id) || ']', '[' || group_concat({_SPLICED}) || ']'"  # noqa: S608
        f" FROM ({choice})"
    )


_ANY_SUSPICION = f"CROSS JOIN {_SUSPICIONS} AS s"
_BELOW_LIMIT = f"AND {_RUNNING} < :most"
#: What a claim gets: (rows, ids as JSON, rows as JSON). Parameters: queue, suspicion, now, limit, most.
CHOOSE = _chosen(_choice(":suspicion", "", "m.*"))
CHOOSE_ANY = _chosen(_choice("s.column1", _ANY_SUSPICION, "m.*"))
CHOOSE_BELOW = _chosen(_choice(":suspicion", "", "m.*", _BELOW_LIMIT))
CHOOSE_ANY_BELOW = _chosen(_choice("s.column1", _ANY_SUSPICION, "m.*", _BELOW_LIMIT))
#: Whether a claim would get anything: read before the write lock is taken.
WAITING = f"SELECT EXISTS({_choice('s.column1', _ANY_SUSPICION, '1').replace('LIMIT :limit', 'LIMIT 1')})"
#: Leased rows once more, with headers and properties as plain text: for when one cannot be read.
REREAD = (
    f"SELECT '[' || group_concat({_row_json('token', 'json_quote(headers)', 'json_quote(properties)')}) || ']'"  # noqa: S608
    " FROM (SELECT * FROM cfqueue_messages WHERE id IN (SELECT value FROM json_each(?)))"
)
PEEK = _chosen(
    "SELECT * FROM cfqueue_messages INDEXED BY cfqueue_messages_ready"
    " WHERE owner IS NULL AND queue = :queue ORDER BY suspicion, priority DESC, due_ms, id LIMIT :limit"
)

TAKE = (
    "UPDATE cfqueue_messages SET owner = ?, token = token + 1, batch = ?, crash_delay_ms = ?"
    " WHERE id IN (SELECT value FROM json_each(?))"
)

# A lease set travels as {"id": token, …}; both sides of a pair come out of one json_each.
_OURS = (
    "SELECT m.id FROM json_each(:leases) AS j CROSS JOIN cfqueue_messages AS m"
    " ON m.id = CAST(j.key AS INTEGER) AND m.token = j.value"
)
#: Which of the leases are still ours, as one JSON list.
OURS = f"SELECT json_group_array(id) FROM ({_OURS})"  # noqa: S608
ACK = f"DELETE FROM cfqueue_messages WHERE id IN ({_OURS})"  # noqa: S608
RELEASE = (
    "UPDATE cfqueue_messages SET owner = NULL, batch = NULL, token = token + 1,"  # noqa: S608
    f" due_ms = max(due_ms, :due) WHERE id IN ({_OURS})"
)
START_CHECK = f"SELECT json_group_array(id), {_RUNNING} FROM ({_OURS})"  # noqa: S608
START = (
    "UPDATE cfqueue_messages SET batch = ?, crash_delay_ms = ?, owner = ?"
    " WHERE id IN (SELECT value FROM json_each(?))"
)

# Items travel as [[id, token, …], …].
RETRY = """UPDATE cfqueue_messages AS m
 SET attempts = v.attempts, due_ms = v.due_ms, suspicion = v.suspicion, first_failed_ms = v.first_failed_ms,
  owner = NULL, batch = NULL, token = m.token + 1
 FROM (SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS token,
  json_extract(value, '$[2]') AS attempts, json_extract(value, '$[3]') AS due_ms,
  json_extract(value, '$[4]') AS suspicion, json_extract(value, '$[5]') AS first_failed_ms
  FROM json_each(:items)) AS v
 WHERE m.id = v.id AND m.token = v.token"""

# A header text that SQLite cannot read (NaN, for one) gets the patch appended: the last of two equal
# keys wins in every reader.
MOVE = """UPDATE cfqueue_messages AS m
 SET queue = v.queue, due_ms = v.due_ms, attempts = 1, suspicion = 0, first_failed_ms = NULL, expires_ms = NULL,
  headers = CASE WHEN json_valid(m.headers) THEN json_patch(m.headers, v.patch)
   ELSE substr(m.headers, 1, length(m.headers) - 1) || ',' || substr(v.patch, 2) END,
  owner = NULL, batch = NULL, token = m.token + 1
 FROM (SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS token,
  json_extract(value, '$[2]') AS queue, json_extract(value, '$[3]') AS due_ms,
  json_extract(value, '$[4]') AS patch FROM json_each(:items)) AS v
 WHERE m.id = v.id AND m.token = v.token"""

# The SQL form of `cfqueue.messages.crash.returned`; a test compares the two for every input.
REAP = """UPDATE cfqueue_messages
 SET attempts = attempts + (batch IS NOT NULL AND suspicion >= 2),
  due_ms = CASE WHEN batch IS NOT NULL AND suspicion >= 2 THEN max(due_ms, :now + crash_delay_ms) ELSE due_ms END,
  first_failed_ms = CASE WHEN batch IS NOT NULL AND suspicion >= 2 THEN ifnull(first_failed_ms, :now)
   ELSE first_failed_ms END,
  suspicion = CASE WHEN batch IS NOT NULL THEN min(suspicion + 1, 2) ELSE suspicion END,
  owner = NULL, batch = NULL, token = token + 1
 WHERE owner = :owner"""
REAP_CLEAN = "UPDATE cfqueue_messages SET owner = NULL, batch = NULL, token = token + 1 WHERE owner = :owner"

#: Every owner that leases something, by seeks (a DISTINCT would walk all leases).
OWNERS = """WITH RECURSIVE seen(name) AS (
 SELECT min(owner) FROM cfqueue_messages WHERE owner IS NOT NULL
 UNION ALL
 SELECT (SELECT min(owner) FROM cfqueue_messages WHERE owner IS NOT NULL AND owner > name)
 FROM seen WHERE name IS NOT NULL)
 SELECT json_group_array(name) FROM seen WHERE name IS NOT NULL"""

NEXT_DUE = f"""SELECT min((SELECT due_ms FROM cfqueue_messages INDEXED BY cfqueue_messages_ready
  WHERE owner IS NULL AND queue = q.value AND suspicion = s.column1 AND priority = p.column1 AND due_ms > :now
  ORDER BY due_ms LIMIT 1))
 FROM json_each(:queues) AS q CROSS JOIN {_SUSPICIONS} AS s CROSS JOIN {_PRIORITIES} AS p"""  # noqa: S608

#: What could be delivered now, and beside it what is delayed and what came back.
BACKLOG = """SELECT count(*) FILTER (WHERE due_ms <= :now), ifnull(sum(size) FILTER (WHERE due_ms <= :now), 0),
 min(timestamp_ms) FILTER (WHERE due_ms <= :now), count(*) FILTER (WHERE due_ms > :now),
 count(*) FILTER (WHERE suspicion > 0)
 FROM cfqueue_messages INDEXED BY cfqueue_messages_ready WHERE owner IS NULL AND queue = :queue"""
IN_FLIGHT = (
    "SELECT count(*) FROM cfqueue_messages INDEXED BY cfqueue_messages_leased"
    " WHERE owner IS NOT NULL AND queue = :queue"
)
LENGTH = (
    "SELECT count(*) FROM cfqueue_messages INDEXED BY cfqueue_messages_ready"
    " WHERE owner IS NULL AND queue = :queue"
)
PURGE = (
    "DELETE FROM cfqueue_messages WHERE id IN (SELECT id FROM cfqueue_messages"
    " INDEXED BY cfqueue_messages_ready WHERE owner IS NULL AND queue = :queue)"
)
