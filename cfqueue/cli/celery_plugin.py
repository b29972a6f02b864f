"""``celery -A proj queues …``: the group that Celery loads for every ``celery`` command.

Importing this module imports cfqueue, which registers its kombu alias; that is how a worker can
start on a ``cfqueue+sqlite`` URL. It must therefore stay light.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cfqueue import CFQueue
from cfqueue.cli.output import Failure, Output, reporting

if TYPE_CHECKING:
    from cfqueue.cli.application import Application
    from cfqueue.producer import Queue

T = TypeVar("T", bound=Callable[..., Any])

#: Queues that have messages in the file, one step into the index for each.
_WITH_MESSAGES = """
WITH RECURSIVE found(name) AS (
  SELECT min(queue) FROM cfqueue_messages
  UNION ALL
  SELECT (SELECT min(queue) FROM cfqueue_messages WHERE queue > name) FROM found WHERE name IS NOT NULL)
SELECT name FROM found WHERE name IS NOT NULL
"""


@click.group()
def queues() -> None:
    """Look at the queues of the application.

    More commands (create, send, peek, purge, pause-delivery, redrive) come in a later version.
    """


def application_option(command: T) -> T:
    """``--app`` for ``cfqueue queues``; under ``celery -A proj queues`` Celery's own option has been read."""
    return click.option(
        "--app", "-A", "spec", envvar="CFQUEUE_APP", metavar="MODULE[:NAME]", help="The application."
    )(command)


def _found(spec: str | None) -> tuple[Application, CFQueue]:
    # The module itself stays light: it is imported for every `celery` command.
    from cfqueue.cli.application import Application, attached, chosen_or_default

    celery = getattr(click.get_current_context().find_root().obj, "app", None)
    if spec is None and celery is not None:
        name = f"The Celery app {celery.main!r}" if celery.main else "The Celery app"
        application = Application(name, celery, attached(celery, name))
    else:
        application = chosen_or_default(spec)
    if application.cf is None:
        raise Failure(f"{application.spec} has no CFQueue. Add: cf = CFQueue(app)")
    return application, application.cf


def _names(application: Application, cf: CFQueue) -> list[str]:
    """The queues that the program knows; where none was named, also those in the file."""
    names = set(cf.queues)
    path = _file(cf)
    if not application.program and path is not None and Path(path).exists():
        from cfqueue.config import is_queue_name
        from cfqueue.transport.store import Store

        store = Store.at(path)
        there = {*store.queues(), *(name for (name,) in store.read_all(_WITH_MESSAGES))}
        names |= {name for name in there if is_queue_name(name)}
    return sorted(names)


def _file(cf: CFQueue) -> str | None:
    """The broker's file; None where it is another broker."""
    from cfqueue.brokers import SQLITE_URL
    from cfqueue.database import sqlite_path

    return sqlite_path(cf.broker_url) if cf.broker_url.startswith(SQLITE_URL) else None


def _row(queue: Queue) -> dict[str, Any]:
    metrics = queue.metrics()
    oldest = metrics.oldest_message_timestamp
    return {
        "queue": queue.name,
        "waiting": metrics.backlog_count,
        "bytes": metrics.backlog_bytes,
        "delayed": metrics.delayed_count,
        "in_flight": metrics.in_flight_count,
        "oldest": oldest.isoformat(timespec="seconds") if oldest else None,
    }


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """What people read: the same words without underscores, and the age of the oldest message."""
    cells = {key.replace("_", " "): "-" if value is None else str(value) for key, value in row.items()}
    if row["oldest"]:
        cells["oldest"] = _ago(datetime.now(UTC) - datetime.fromisoformat(row["oldest"]))
    return cells


def _ago(age: timedelta) -> str:
    seconds = max(0, round(age.total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


@queues.command("list")
@application_option
@reporting
def list_queues(output: Output, spec: str | None) -> None:
    """List the queues that the application knows, with what waits in them.

    Where there is no application, the queues of the embedded default.
    """
    application, cf = _found(spec)
    where = _file(cf) or _shown(cf.broker_url)
    rows = [_row(cf.queues[name]) for name in _names(application, cf)]
    output.line(f"{application.spec}, in {where}:")
    output.line()
    if rows:
        cells = [_cells(row) for row in rows]
        output.table(None, list(cells[0]), [list(row.values()) for row in cells])
    else:
        output.line("There is no queue.")
    if not application.program:
        output.line("No program was named. To see all queues of one: --app module")
    output.document({"application": application.spec, "broker": where, "queues": rows})


def _shown(url: str) -> str:
    from kombu.utils.url import maybe_sanitize_url

    return str(maybe_sanitize_url(url))


@queues.command("info")
@click.argument("name")
@application_option
@reporting
def info(output: Output, spec: str | None, name: str) -> None:
    """Show what waits in queue NAME."""
    application, cf = _found(spec)
    names = _names(application, cf)
    if name not in names:
        raise Failure(
            f"There is no queue {name!r} in {application.spec}. Known: {', '.join(names) or 'none'}."
        )
    row = _row(cf.queues[name])
    output.table(None, ("", ""), list(_cells(row).items()))
    output.document(row)
