"""``cfqueue init DIR``: write a project that works at once."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

from cfqueue.cli import project
from cfqueue.cli.output import Failure, Output, reporting
from cfqueue.cli.scripts import typed, typed_python


def project_name(folder: Path) -> str:
    """Return the folder's name as Cloudflare allows it for a Worker: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")[:63] or "queues"


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@reporting
def init(output: Output, directory: Path) -> None:
    """Write a new project into DIR: wrangler.toml, app, handler and test.

    DIR may exist; no file is overwritten.
    """
    if directory.exists() and not directory.is_dir():
        raise click.BadParameter(f"{directory} is not a folder.", param_hint="DIR")
    files = project.files(project_name(directory.resolve()))
    there = [name for name in files if (directory / name).exists()]
    if there:
        raise Failure(
            f"{directory} already has {', '.join(there)}. Nothing was written; choose another folder."
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            # "x" and not "w": a file that appears in the meantime is not overwritten either.
            with (directory / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise Failure(f"{error.filename or directory} cannot be written: {error.strerror}.") from None
    enter = "" if directory.resolve() == Path.cwd() else f"cd {shlex.quote(str(directory))} && "
    dev = typed("cfqueue", "cfqueue.cli", anywhere=True)
    commands = [f"{enter}{dev} dev", f"{enter}{typed_python()} app.py"]
    output.line(f"Wrote {', '.join(files)} to {directory}. Next:")
    width = max(len(command) for command in commands)
    output.line(f"  {commands[0]:<{width}}   # runs the worker")
    output.line(f"  {commands[1]:<{width}}   # in a second terminal: sends five messages")
    output.document({"directory": str(directory), "files": list(files), "next": commands})
