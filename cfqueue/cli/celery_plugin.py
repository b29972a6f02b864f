"""``celery -A proj queues …``: the group that Celery loads for every ``celery`` command.

Importing this module imports cfqueue, which registers its kombu alias; that is how a worker can
start on a ``cfqueue+sqlite`` URL. It must therefore stay light.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from cfqueue import CFQueue
from cfqueue.cli.output import Failure, Output, reporting

T = TypeVar("T", bound=Callable[..., Any])


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


def _cf(spec: str | None) -> CFQueue:
    # The module itself stays light: it is imported for every `celery` command.
    from cfqueue.cli.application import attached, chosen_or_default, load

    celery = getattr(click.get_current_context().find_root().obj, "app", None)
    if spec is None and celery is not None:
        name = celery.main or "The Celery app"
        cf = attached(celery, name)
    else:
        application = load(spec) if spec else chosen_or_default(None)
        name, cf = application.spec, application.cf
    if cf is None:
        raise Failure(f"{name} has no CFQueue. Add: cf = CFQueue(app)")
    return cf


def _row(queue: Any) -> dict[str, Any]:
    metrics = queue.metrics()
    oldest = metrics.oldest_message_timestamp
    return {
        "queue": queue.name,
        "backlog_count": metrics.backlog_count,
        "backlog_bytes": metrics.backlog_bytes,
        "delayed_count": metrics.delayed_count,
        "in_flight_count": metrics.in_flight_count,
        "oldest_message_timestamp": oldest.isoformat() if oldest else None,
    }


@queues.command("list")
@application_option
@reporting
def list_queues(output: Output, spec: str | None) -> None:
    """List the queues that the application knows, with what waits in them."""
    cf = _cf(spec)
    rows = [_row(cf.queues[name]) for name in sorted(cf.queues)]
    cells = [[_cell(value) for value in row.values()] for row in rows]
    output.table(None, ("queue", "waiting", "bytes", "delayed", "in flight", "oldest"), cells)
    output.document({"queues": rows})


@queues.command("info")
@click.argument("name")
@application_option
@reporting
def info(output: Output, spec: str | None, name: str) -> None:
    """Show what waits in queue NAME."""
    cf = _cf(spec)
    if name not in cf.queues:
        raise Failure(f"There is no queue {name!r}. Known: {', '.join(sorted(cf.queues)) or 'none'}.")
    row = _row(cf.queues[name])
    output.table(None, ("", ""), [(key.replace("_", " "), _cell(value)) for key, value in row.items()])
    output.document(row)


def _cell(value: object) -> str:
    return "-" if value is None else str(value)
