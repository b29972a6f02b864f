"""The demo's results, in a plain SQLite database of its own.

One row for each delivery of a message, and one for each dead letter.

It is written by the worker's pool children and read by the demo. Every figure that the demo
shows comes from here or from the broker; nothing is counted in passing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

# The key makes a second run of the same delivery (its worker was killed after this INSERT and
# before the ack) replace its row instead of counting twice.
_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS deliveries (
    number       INTEGER NOT NULL,  -- the message, numbered by its sender
    attempt      INTEGER NOT NULL,  -- 1 for the first delivery
    distribution TEXT NOT NULL,
    path         TEXT NOT NULL,
    finding      TEXT NOT NULL,     -- intact, content differs, missing, unreadable: ...
    batch        TEXT NOT NULL,
    process      INTEGER NOT NULL,  -- the pool child that ran the batch
    started      REAL NOT NULL,     -- seconds since the epoch: when its batch began ...
    ended        REAL NOT NULL,     -- ... and when all files of the batch were checked
    PRIMARY KEY (number, attempt)
) WITHOUT ROWID
""",
    """
CREATE TABLE IF NOT EXISTS dead_letters (
    number       INTEGER PRIMARY KEY,
    distribution TEXT NOT NULL,
    path         TEXT NOT NULL,
    reason       TEXT NOT NULL,     -- cfqueue's word for why the message is here
    deliveries   INTEGER NOT NULL   -- how often it was delivered before
)
""",
)
_INSERT_DEAD_LETTERS = """
INSERT OR REPLACE INTO dead_letters
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
       json_extract(value, '$[3]'), json_extract(value, '$[4]')
FROM json_each(:rows)
"""
_INSERT = """
INSERT OR REPLACE INTO deliveries
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
       json_extract(value, '$[3]'), json_extract(value, '$[4]'), :batch, :process, :started, :ended
FROM json_each(:rows)
"""
_FIGURES = """
SELECT count(*), count(DISTINCT batch), count(DISTINCT process),
       count(*) FILTER (WHERE attempt > 1),
       count(DISTINCT number) FILTER (WHERE attempt > 1),
       count(DISTINCT number) FILTER (WHERE finding = 'intact'),
       (SELECT count(*) FROM dead_letters)
FROM deliveries
"""
_SPEED = """
SELECT coalesce(sum(size) / (max(ended) - min(started)), 0.0)
FROM (
    SELECT count(*) AS size, min(started) AS started, max(ended) AS ended
    FROM deliveries GROUP BY batch HAVING count(*) = :size
)
"""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """What one delivery found."""

    number: int
    attempt: int
    distribution: str
    path: str
    finding: str


@dataclass(frozen=True, slots=True)
class Figures:
    """The account of all deliveries so far."""

    deliveries: int
    batches: int
    processes: int
    #: Deliveries that were not a message's first.
    retries: int
    retried_messages: int
    #: Messages whose file was found intact, on whichever delivery.
    intact: int
    dead_letters: int

    @property
    def settled(self) -> int:
        """Messages with an outcome that stays: found intact, or dead-lettered."""
        return self.intact + self.dead_letters

    @property
    def mean_batch_size(self) -> float:
        """Deliveries for each batch; 0 before the first."""
        return self.deliveries / self.batches if self.batches else 0.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that the handler of the dead-letter queue received."""

    number: int
    distribution: str
    path: str
    reason: str
    #: How often it had been delivered before.
    deliveries: int


class Results:
    """The results database. Connections are short, so that pool children never share one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
            yield connection

    def create(self) -> None:
        """Make the file and its tables."""
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            for table in _SCHEMA:
                connection.execute(table)

    def store(
        self, rows: Sequence[CheckedFile], *, batch: str, process: int, started: float, ended: float
    ) -> None:
        """Store a whole batch with one INSERT statement."""
        values = json.dumps([[r.number, r.attempt, r.distribution, r.path, r.finding] for r in rows])
        with self._connection() as connection:
            connection.execute(
                _INSERT,
                {"rows": values, "batch": batch, "process": process, "started": started, "ended": ended},
            )

    def store_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Store a batch of dead letters with one INSERT statement."""
        values = json.dumps([[x.number, x.distribution, x.path, x.reason, x.deliveries] for x in letters])
        with self._connection() as connection:
            connection.execute(_INSERT_DEAD_LETTERS, {"rows": values})

    def figures(self) -> Figures:
        """Count what has happened so far."""
        with self._connection() as connection:
            row = connection.execute(_FIGURES).fetchone()
        return Figures(*row)

    def speed(self, size: int) -> float:
        """Return the messages in a second over the batches of exactly ``size``; 0 when there was none.

        A batch that is not full has waited for company, and retries for their delay: neither is work.
        """
        with self._connection() as connection:
            speed: float = connection.execute(_SPEED, {"size": size}).fetchone()[0]
        return speed

    def numbers_found_intact(self) -> set[int]:
        """Return the messages that ended well."""
        with self._connection() as connection:
            rows = connection.execute("SELECT DISTINCT number FROM deliveries WHERE finding = 'intact'")
            return {number for (number,) in rows}

    def dead_letters(self) -> list[DeadLetter]:
        """Return every dead letter, by number."""
        with self._connection() as connection:
            rows = connection.execute("SELECT * FROM dead_letters ORDER BY number")
            return [DeadLetter(*row) for row in rows]

    def deliveries_of(self, number: int) -> list[CheckedFile]:
        """Every delivery of one message, first to last."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT number, attempt, distribution, path, finding FROM deliveries"
                " WHERE number = ? ORDER BY attempt",
                (number,),
            )
            return [CheckedFile(*row) for row in rows]

    def succeeded_on_retry(self) -> list[CheckedFile]:
        """Return the deliveries that found a file intact after an earlier one had not."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT number, attempt, distribution, path, finding FROM deliveries"
                " WHERE finding = 'intact' AND attempt > 1 ORDER BY number"
            )
            return [CheckedFile(*row) for row in rows]
