"""How a user types one of the commands that belong to this Python."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def typed(name: str, module: str, *, anywhere: bool = False) -> str:
    """Return the shortest text that runs ``name``: its name where the shell finds the script of this Python.

    Otherwise the path of the script, relative when it is below the current folder and ``anywhere`` is
    false; without a script, this Python with the module.
    """
    script = Path(sys.executable).with_name(name)
    if not script.exists():
        return f"{typed_python()} -m {module}"
    if _is_found(name):
        return name
    relative = not anywhere and script.is_relative_to(Path.cwd())
    return shlex.quote(str(script.relative_to(Path.cwd()) if relative else script))


def typed_python() -> str:
    """Return ``python`` where the shell finds this one by that name, otherwise its path."""
    return "python" if _is_found("python") else shlex.quote(sys.executable)


def _is_found(name: str) -> bool:
    found = shutil.which(name)
    return found is not None and Path(found).parent == Path(sys.executable).parent
