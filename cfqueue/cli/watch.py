"""Which source files of a folder have changed, by looking at their times."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

#: What a worker reads at its start.
SUFFIXES = (".py", ".toml", ".jsonc")
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})


def sources(folder: Path) -> Iterator[str]:
    """Every source file below ``folder``; hidden folders and virtual environments are left out."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in _SKIPPED
            and not Path(parent, name, "pyvenv.cfg").exists()
        ]
        for name in names:
            if name.endswith(SUFFIXES):
                yield str(Path(parent, name))


class Watch:
    """Remembers the files of a folder; ``changed`` tells what is different since the last call."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._look()

    def _look(self) -> dict[str, tuple[int, int]]:
        seen: dict[str, tuple[int, int]] = {}
        for path in sources(self._folder):
            try:
                status = os.stat(path)  # noqa: PTH116 - called for every file twice a second
            except FileNotFoundError:
                continue  # removed between listing and looking; an editor's swap file
            seen[path] = (status.st_mtime_ns, status.st_size)
        return seen

    def changed(self) -> list[str]:
        """Paths, relative to the folder, of files that were written, added or removed."""
        now = self._look()
        before, self._seen = self._seen, now
        different = {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)}
        return sorted(os.path.relpath(path, self._folder) for path in different)
