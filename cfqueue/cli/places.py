"""Folders that the command makes for itself."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path

from cfqueue.app import home


def fresh_folder(prefix: str) -> Path:
    """Make a new, empty folder in cfqueue's data directory; where that cannot be written, a temporary one."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    try:
        parent = home().resolve()
        parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(100):
            folder = parent / (f"{prefix}-{stamp}" + (f"-{attempt}" if attempt else ""))
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        pass
    return Path(tempfile.mkdtemp(prefix=f"cfqueue-{prefix}-"))
