"""Writes the tables of docs/reference from the code, so that they cannot disagree with it.

    python docs/generate.py            # rewrites what is out of date
    python docs/generate.py --check    # only says so, with exit status 1

A page contains ``<!-- table: name -->`` and ``<!-- end of table -->``; what stands between them is replaced.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from celery.utils.dispatch import Signal

from cfqueue import errors, limits, signals
from cfqueue.cli import main as command_line
from cfqueue.config.reference import as_markdown

REFERENCE = Path(__file__).resolve().parent / "reference"
#: Code spans, and the angle brackets outside of them, which Markdown would take for HTML.
_CODE_OR_ANGLE = re.compile(r"`[^`]*`|<")
_TABLE = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def settings() -> str:
    """Every setting, from the table that validates them."""
    return _CODE_OR_ANGLE.sub(lambda found: "&lt;" if found[0] == "<" else found[0], as_markdown())


def errors_table() -> str:
    """The tree of errors and what each of them means."""
    tree = inspect.cleandoc(errors.__doc__ or "").split("\n\n")[1]
    rows = ["| error | is also a | meaning |", "|---|---|---|"]
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, Exception):
            bases = ", ".join(f"`{base.__name__}`" for base in error.__bases__)
            rows.append(f"| `{name}` | {bases} | {_one_line(error.__doc__)} |")
    return f"```text\n{inspect.cleandoc(tree)}\n```\n\n" + "\n".join(rows) + "\n"


def limits_table() -> str:
    """Every number of ``limits.py`` with the comment that stands above it."""
    rows = ["| name in `cfqueue.limits` | value | what it limits |", "|---|---|---|"]
    comment: list[str] = []
    earlier = ""
    for line in inspect.getsource(limits).splitlines():
        if line.startswith("#: "):
            comment.append(line.removeprefix("#: "))
        elif found := re.match(r"([A-Z][A-Z_]+) = ", line):
            name = found.group(1)
            if name != "CLOUDFLARE":
                earlier = " ".join(comment) or earlier
                rows.append(f"| `{name}` | {_number(getattr(limits, name))} | {earlier.replace('``', '`')} |")
            comment = []
        elif not line.startswith("#"):
            comment = []
    return "\n".join(rows) + "\n"


def signals_table() -> str:
    """Every signal with its arguments."""
    rows = ["| signal | when | arguments |", "|---|---|---|"]
    comment: list[str] = []
    for line in inspect.getsource(signals).splitlines():
        if line.startswith("#: "):
            comment.append(line.removeprefix("#: "))
        elif found := re.match(r"([a-z_]+) = Signal\(", line):
            assert isinstance(getattr(signals, found.group(1)), Signal)
            when, _, arguments = " ".join(comment).replace("``", "`").partition(" Arguments: ")
            rows.append(f"| `{found.group(1)}` | {when} | {arguments} |")
            comment = []
    return "\n".join(rows) + "\n"


def command_table() -> str:
    """Every command with its arguments and options."""
    parts = []
    for path, command in commands(command_line, ("cfqueue",)):
        usage = " ".join([*path, *(param.make_metavar(_context(command)) for param in _arguments(command))])
        text = inspect.cleandoc(command.help or "").replace("\b\n", "")
        parts.append(f"### `{' '.join(path)}`\n\n{text}\n\n```text\n{usage}{_rest(command)}\n```")
        options = [param for param in command.params if isinstance(param, click.Option)]
        if options:
            rows = "\n".join(_option_row(command, option) for option in options)
            parts.append(f"| option | what it does | default |\n|---|---|---|\n{rows}")
    return "\n\n".join(parts) + "\n"


def commands(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command and everything below it, with the words that are typed for each."""
    yield path, command
    if isinstance(command, click.Group):
        context = _context(command)
        for name in sorted(command.list_commands(context)):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*path, name))


def _context(command: click.Command) -> click.Context:
    return click.Context(command)


def _arguments(command: click.Command) -> list[click.Parameter]:
    return [param for param in command.params if isinstance(param, click.Argument)]


def _rest(command: click.Command) -> str:
    return " COMMAND" if isinstance(command, click.Group) else ""


def _option_row(command: click.Command, option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if not option.is_flag:
        names += f" {option.make_metavar(_context(command))}"
    default = f"`{option.default}`" if option.show_default else ""
    return f"| {names} | {_one_line(option.help)} | {default} |"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("``", "`").replace("|", "\\|")


def _number(value: object) -> str:
    if isinstance(value, tuple):
        return " to ".join(_number(each) for each in value)
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
    )


TABLES: dict[str, Callable[[], str]] = {
    "settings": settings,
    "errors": errors_table,
    "limits": limits_table,
    "signals": signals_table,
    "commands": command_table,
}


def pages() -> Iterator[tuple[Path, str, str]]:
    """Every page with a table: where it is, what it says, and what it should say."""
    for page in sorted(REFERENCE.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if "<!-- table: " in text:
            fresh = _TABLE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", text)
            yield page, text, fresh


def main(arguments: list[str]) -> int:
    """Write or check; the exit status."""
    stale = [(page, fresh) for page, text, fresh in pages() if text != fresh]
    for page, fresh in stale:
        if "--check" not in arguments:
            page.write_text(fresh, encoding="utf-8")
        print(f"{page.name} {'is out of date' if '--check' in arguments else 'written'}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
