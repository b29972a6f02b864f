"""Folders that the command makes for itself."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from cfqueue.app import home
from cfqueue.errors import ConfigurationError

#: Folders of one kind that stay; older ones are removed when a new one is made.
KEPT = 3
#: Is locked as long as the folder is in use.
_LOCK = "in-use.lock"


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
    except (OSError, RuntimeError, ConfigurationError):  # the last two: there is no home directory
        pass
    return Path(tempfile.mkdtemp(prefix=f"cfqueue-{prefix}-"))


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep ``remove_older`` of other processes from removing the folder."""
    with (folder / _LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_older(folder: Path) -> list[Path]:
    """Remove all but the newest ``KEPT`` folders of the kind of ``folder``, except those in use."""
    if not is_cleaned_up(folder):
        return []
    kind = _kind(folder)
    alike = [each for each in folder.parent.iterdir() if _kind(each) == kind and _is_own(each)]
    newest_first = sorted(alike, key=lambda each: each.name, reverse=True)
    kept = {folder, *[each for each in newest_first if each != folder][: KEPT - 1]}
    return [each for each in newest_first if each not in kept and _removed(each)]


def is_cleaned_up(folder: Path) -> bool:
    """Whether later folders of its kind take its place; not so for a temporary one."""
    return _kind(folder) is not None


def _kind(folder: Path) -> str | None:
    found = re.fullmatch(r"(.+)-\d{8}-\d{6}(-\d+)?", folder.name)
    return found[1] if found else None


def _is_own(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.geteuid()


def _removed(folder: Path) -> bool:
    with suppress(FileNotFoundError), (folder / _LOCK).open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()
