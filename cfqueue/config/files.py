"""A configuration file becomes plain data; what cannot be read says which file and line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfqueue.config.suggestion import did_you_mean
from cfqueue.config.warning import warn
from cfqueue.errors import ConfigurationError

#: In wrangler's own order of preference.
FILE_NAMES = ("wrangler.json", "wrangler.jsonc", "wrangler.toml")
_SUFFIXES = (".toml", ".jsonc", ".json")


@dataclass(frozen=True, slots=True)
class Document:
    """The data of one configuration and what to call it in an error."""

    data: Mapping[str, Any]
    label: str
    path: Path | None = None


def find(folder: str | Path = ".") -> Path | None:
    """Find the wrangler file of ``folder`` itself; where there are several, wrangler's choice."""
    return next((path for name in FILE_NAMES if (path := Path(folder) / name).is_file()), None)


def read(path: str | Path) -> Document:
    """Read a .toml, .jsonc or .json file.

    Raises ConfigurationError when it is missing, not readable, not UTF-8, or has a syntax error.
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigurationError(
            f"{path}: a configuration file ends in .toml, .jsonc or .json; this ends in {path.suffix!r}."
        )
    text = _text(path)
    try:
        data = _toml(text) if path.suffix.lower() == ".toml" else _json(text, str(path))
    except RecursionError:
        raise ConfigurationError(f"{path}: nested too deeply to be read.") from None
    except ValueError as error:
        raise ConfigurationError(_syntax_error(path, text, error)) from error
    if not isinstance(data, dict):
        raise ConfigurationError(
            f"{path}: the file holds a {type(data).__name__}; it must hold a table ({{…}} with keys)."
        )
    return Document(data, str(path), path)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        candidates = [name for name in names if name.endswith(_SUFFIXES)]
        hint = did_you_mean(path.name, candidates)
        raise ConfigurationError(f"{path}: there is no such configuration file.{hint}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(
            f"{path}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x}). Save it as UTF-8."
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror or error}.") from error


def _toml(text: str) -> Any:
    import tomllib

    return tomllib.loads(text)


def _json(text: str, label: str) -> Any:
    """Read JSON with the standard library; comments and trailing commas with json5, far slower."""
    import json

    repeated: dict[str, None] = {}

    def table(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for name, value in pairs:
            if name in data:
                repeated[name] = None
            data[name] = value
        return data

    try:
        data = json.loads(text, object_pairs_hook=table)
    except json.JSONDecodeError:
        import json5

        repeated.clear()
        data = json5.loads(text, object_pairs_hook=table)
    for name in repeated:
        warn(f"{label}: the key {name!r} stands twice in one table; the last one counts.")
    return data


def _syntax_error(path: Path, text: str, error: ValueError) -> str:
    """Both parsers put line and column into their text, each in a way of its own."""
    said = str(error)
    if match := re.search(r"\(at line (\d+), column (\d+)\)", said):
        line, column, what = int(match[1]), int(match[2]), said[: match.start()].strip()
    elif match := re.match(r"<string>:(\d+) (.*) at column (\d+)$", said, re.DOTALL):
        line, column, what = int(match[1]), int(match[3]), match[2]
    else:
        # "At end of document", an empty file, or a number with thousands of digits.
        at_end = "end of document" in said or not text.strip()
        what = said.removesuffix(" (at end of document)")
        if not at_end:
            return f"{path}: cannot be read: {what}."
        line, column = len(text.splitlines()) or 1, 0
    place = f"{path}, line {line}" + (f", column {column}" if column else "")
    lines = text.splitlines()
    shown = lines[line - 1].strip()[:80] if 0 < line <= len(lines) else ""
    return f"{place}: syntax error: {what}." + (f" The line reads: {shown}" if shown else "")
