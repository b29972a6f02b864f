"""Find the application that a command is about, from ``--app module:cf`` or ``-A proj``."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from celery import Celery
from celery.app.utils import find_app

from cfqueue import CFQueue
from cfqueue.cli.output import Failure
from cfqueue.errors import CFQueueError

T = TypeVar("T", bound=Callable[..., Any])

#: What the commands look for in the current folder when no application is named.
USUAL_FILE = "app.py"
#: The configuration files that are looked for in the current folder, first to last, as wrangler does.
WRANGLER_FILES = ("wrangler.json", "wrangler.jsonc", "wrangler.toml")


@dataclass(frozen=True, slots=True)
class Application:
    """A Celery app, and the CFQueue on it if there is one."""

    spec: str
    celery: Celery
    cf: CFQueue | None
    #: False where no program was named: then only configuration and broker are known, and no handlers.
    program: bool = True


class NoSuchModule(Failure):
    """The module that was named on the command line is not there."""


def app_option(command: T) -> T:
    """Add the options ``--app`` and ``-A``, with ``CFQUEUE_APP`` behind them."""
    option = click.option(
        "--app",
        "-A",
        "spec",
        envvar="CFQUEUE_APP",
        metavar="MODULE[:NAME]",
        help="The application, as in 'shop.queues:cf', or any Celery app.",
    )
    return option(command)


def chosen(spec: str | None) -> str:
    """Return the application to use: as named, else the current folder's app.py. UsageError without both."""
    if spec is not None:
        return _checked(spec)
    if Path(USUAL_FILE).is_file():
        return Path(USUAL_FILE).stem
    raise click.UsageError(
        f"Which application? Give --app module:cf, set CFQUEUE_APP, or run this where {USUAL_FILE} is."
    )


def chosen_or_default(spec: str | None) -> Application:
    """As ``chosen``; without both, the folder's wrangler file, CFQUEUE_BROKER_URL or the embedded default."""
    if spec is not None or Path(USUAL_FILE).is_file():
        return load(chosen(spec))
    file = next((name for name in WRANGLER_FILES if Path(name).is_file()), None)
    cf = CFQueue(config=file)
    given = "CFQUEUE_BROKER_URL" if os.environ.get("CFQUEUE_BROKER_URL") else "the embedded default"
    return Application(file or given, cf.app, cf, program=False)


def _checked(spec: str) -> str:
    """Return ``module[:name]`` as it is. UsageError for nothing, and for a file where a module is meant."""
    module, separator, name = spec.partition(":")
    if not module.strip():
        raise click.UsageError("--app is empty. Give the application: --app module:cf")
    path = Path(module)
    if path.suffix == ".py" or len(path.parts) > 1 or module.startswith("."):
        inside = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        parts = [part.strip(".") for part in inside.with_suffix("").parts if part.strip("./")]
        meant = ".".join(parts) + separator + name
        raise click.UsageError(f"--app takes a module, not a file. Give {meant}, not {spec}")
    return spec


def load(spec: str) -> Application:
    """Import the application. Raises Failure with one line that says what went wrong where."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `celery -A` does
    found = _found(spec)
    if isinstance(found, CFQueue):
        attached(found.app, spec)
        return Application(spec, found.app, found)
    if isinstance(found, Celery):
        return Application(spec, found, attached(found, spec))
    raise Failure(f"{spec} is of type {type(found).__name__}, neither a CFQueue nor a Celery app.")


def _found(spec: str) -> object:
    module_name, _, name = spec.partition(":")
    try:
        module = importlib.import_module(module_name)
        if name:
            return getattr(module, name)
        for value in vars(module).values():
            if isinstance(value, CFQueue):
                return value
        return find_app(spec)
    except CFQueueError as error:
        raise Failure(f"{spec}: {error}") from None
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            where = f"in {Path.cwd()} or on the Python path"
            raise NoSuchModule(f"There is no module {error.name!r} {where}.") from None
        raise Failure(_where(spec, error)) from None
    except AttributeError as error:
        if name and f"has no attribute {name!r}" in str(error):
            raise Failure(f"Module {module_name!r} has no {name!r}.") from None
        if not name and str(error) == f"module {module_name!r} has no attribute 'celery'":
            raise Failure(f"Module {module_name!r} has neither a CFQueue nor a Celery app.") from None
        raise Failure(_where(spec, error)) from None
    except (Exception, SystemExit) as error:
        raise Failure(_where(spec, error)) from None


def _where(spec: str, error: BaseException) -> str:
    """One line: what an import raised, and the file and line; those of the project where it has a part."""
    text = str(error)
    if isinstance(error, SyntaxError):
        place, text = f"{error.filename}:{error.lineno}", error.msg
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if _is_of_project(Path(frame.filename))]
        frame = next(reversed(own or frames), None)
        place = f"{frame.filename}:{frame.lineno}" if frame else "unknown place"
    text = " ".join(text.split())
    return f"{spec} cannot be imported: {type(error).__name__}: {text} ({os.path.relpath(place)})"


def _is_of_project(file: Path) -> bool:
    return file.is_relative_to(Path.cwd()) and "site-packages" not in file.parts


def attached(celery: Celery, spec: str) -> CFQueue | None:
    """Return the CFQueue that a Celery app carries. Loading its tasks may be what creates it."""
    try:
        celery.loader.import_default_modules()
    except CFQueueError as error:
        raise Failure(f"{spec}: {error}") from None
    except (Exception, SystemExit) as error:
        raise Failure(_where(spec, error)) from None
    return CFQueue.of(celery)
