"""The ``cfqueue`` command. Each subcommand is a module of this folder and is imported when it is used."""

from __future__ import annotations

import importlib
import platform
import sqlite3
from importlib import metadata

import click

from cfqueue import __version__

_COMMANDS = {
    "demo": ("cfqueue.cli.demo", "demo"),
    "dev": ("cfqueue.cli.dev", "dev"),
    "doctor": ("cfqueue.cli.doctor", "doctor"),
    "init": ("cfqueue.cli.init", "init"),
    "queues": ("cfqueue.cli.celery_plugin", "queues"),
}


class Commands(click.Group):
    """Imports a command's module only for that command and for the list of commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, by name."""
        del ctx
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


def _show_version(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    del parameter
    if not asked or context.resilient_parsing:
        return
    click.echo(
        f"cfqueue {__version__}, Celery {metadata.version('celery')}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}"
    )
    context.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the versions of cfqueue and of what it stands on.",
)
def main() -> None:
    """Cloudflare Queues for people who run Celery."""
