"""The table that the `insert` handler and task write into."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def create_logs(folder: Path) -> None:
    """The table that handlers write into, made before a worker starts."""
    connection = sqlite3.connect(folder / "logs.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE logs(id INTEGER PRIMARY KEY, user_id TEXT, action TEXT, n INT)")
    connection.close()
