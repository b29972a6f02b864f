"""How commands speak: rich for people, one JSON document with ``--json``, and one clear line for errors."""

from __future__ import annotations

import functools
import io
import json
import sqlite3
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from cfqueue.errors import CFQueueError

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")
T = TypeVar("T")

#: How signs of ours are written where the output's encoding has none.
_PLAIN = str.maketrans({"→": "->", "…": "..."})
#: Columns where there is no terminal to ask; log files and CI pages show more than 80.
PLAIN_WIDTH = 110

#: The exit status after Ctrl-C.
INTERRUPTED = 130


class Failure(click.ClickException):
    """Something went wrong that the user can act on: one line, exit status 1."""


class Output:
    """Where a command writes."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        if not self._unicode and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a path may have any letter

    @functools.cached_property
    def console(self) -> Console:
        """Rich is loaded when something is first shown: every `celery` command imports this module."""
        from rich.console import Console

        console = Console(highlight=False)
        return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)

    @property
    def live(self) -> bool:
        """Whether lines can be drawn over: a terminal, and no ``--json``."""
        return self.console.is_terminal and not self.as_json

    def _plain(self, text: str) -> str:
        return text if self._unicode else text.translate(_PLAIN)

    def line(self, text: str = "", *, style: str | None = None) -> None:
        """One line for people; nothing with ``--json``. Long lines are left to the terminal to fold."""
        if not self.as_json:
            self.console.print(self._plain(text), style=style, markup=False, soft_wrap=True)

    def table(self, title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Draw a table for people; nothing with ``--json``. Without column names it is a list of facts."""
        if self.as_json:
            return
        from rich.box import SIMPLE
        from rich.table import Table
        from rich.text import Text

        if title:
            self.line(title, style="bold")
        table = Table(box=SIMPLE, show_header=any(columns), pad_edge=False, show_edge=False)
        for position, column in enumerate(columns):
            table.add_column(column, style="bold" if position == 0 else None, overflow="fold")
        for row in rows:
            table.add_row(*(Text(self._plain(cell)) for cell in row))
        self.console.print(table)
        self.line()

    def finding(self, level: str, style: str, check: str, meaning: str, action: str) -> None:
        """Show a finding to people: its level, what it means, and below it what to do."""
        if self.as_json:
            return
        from rich.text import Text

        head = Text.assemble((f"{level:<5} ", style), (check, "bold"), self._plain(f": {meaning}"))
        self.console.print(head, soft_wrap=True)
        if action:
            self.console.print(Text(self._plain(f"      → {action}")), soft_wrap=True)

    def document(self, data: Any) -> None:
        """Print the one JSON document; nothing without ``--json``."""
        if self.as_json:
            click.echo(json.dumps(data, indent=2, ensure_ascii=not self._unicode, default=str))

    def event(self, **data: Any) -> None:
        """One JSON line of a command that goes on; nothing without ``--json``."""
        if self.as_json:
            click.echo(json.dumps(data, ensure_ascii=not self._unicode, default=str))


def reporting(command: Callable[Concatenate[Output, P], T]) -> Callable[P, T]:
    """Give a command ``--json`` and an ``Output``; turn our errors into one line and exit status 1."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text and tables.")
    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        output = Output(as_json=bool(kwargs.pop("as_json")))
        try:
            return command(output, *args, **kwargs)
        except BrokenPipeError:
            raise  # the reader of our output has gone; click ends quietly
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None
        except (CFQueueError, Failure, OSError, sqlite3.Error) as error:
            text = error.format_message() if isinstance(error, Failure) else " ".join(str(error).split())
            if output.as_json:
                output.document({"error": text})
                raise click.exceptions.Exit(1) from None
            raise Failure(text) from None

    return run
