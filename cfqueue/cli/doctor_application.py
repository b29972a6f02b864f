"""The doctor's checks of an application: handlers, time limits against the pool, dead letters, durability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cfqueue.cli.application import Application
from cfqueue.cli.finding import Finding
from cfqueue.limits import DEFAULT_TIME_LIMIT
from cfqueue.messages import ConsumerSettings

#: The columns of the settings table.
_COLUMNS = (
    "queue",
    "max_batch_size",
    "max_batch_timeout",
    "max_retries",
    "retry_delay",
    "dead_letter_queue",
    "max_concurrency",
    "time_limit",
)


def application_findings(application: Application) -> list[Finding]:
    """Everything that can be said without asking the broker."""
    findings = []
    settings = _settings(application)
    if application.cf is None:
        findings.append(
            Finding(
                "handlers",
                "info",
                f"{application.spec} is a Celery app without a CFQueue: only its broker is checked.",
                "To add queues: cf = CFQueue(app).",
            )
        )
    elif not application.program:
        findings.append(
            Finding(
                "handlers",
                "info",
                f"No program was named: only {application.spec} was looked at, and handlers are unknown.",
                "Name it: cfqueue doctor --app module",
            )
        )
    else:
        findings += _handlers(settings)
        findings += _default_queue(settings, application.celery.conf)
    if settings:
        findings += _time_limits(settings, pool_of(application.celery.conf))
        findings += _dead_letters(settings)
    findings += _eager(application.celery.conf)
    return findings


def settings_table(application: Application) -> list[dict[str, Any]]:
    """One row for each handler."""
    return [
        {column: getattr(settings, column) for column in _COLUMNS}
        for settings in _settings(application).values()
    ]


def pool_of(conf: Mapping[str, Any]) -> str:
    """Return the configured pool's name; ``celery worker --pool`` can still name another."""
    pool = str(conf.get("worker_pool") or "prefork")
    return "threads" if pool == "threads" or pool.endswith("thread:TaskPool") else pool


def _settings(application: Application) -> dict[str, ConsumerSettings]:
    if application.cf is None:
        return {}
    return {name: application.cf.consumers[name].settings for name in sorted(application.cf.consumers)}


def _handlers(settings: Mapping[str, ConsumerSettings]) -> list[Finding]:
    if not settings:
        return [
            Finding(
                "handlers",
                "warn",
                "The app has a CFQueue and no handler, so nothing consumes a queue.",
                "Decorate one with @cf.queue('name'), in a module that the app imports.",
            )
        ]
    return [Finding("handlers", "ok", f"{_count(len(settings), 'handler')}: {', '.join(settings)}.")]


def _default_queue(settings: Mapping[str, ConsumerSettings], conf: Mapping[str, Any]) -> list[Finding]:
    name = str(conf.get("task_default_queue") or "celery")
    if name not in settings:
        return []
    return [
        Finding(
            "handlers",
            "warn",
            f"{name} is also the name of Celery's default queue: a worker that serves the handler runs none "
            "of the tasks that are sent there.",
            "Give the handler's queue another name, or set task_default_queue.",
        )
    ]


def _time_limits(settings: Mapping[str, ConsumerSettings], pool: str) -> list[Finding]:
    if pool == "prefork":
        endless = [name for name, each in settings.items() if each.time_limit is None]
        if endless:
            return [
                Finding(
                    "time limits",
                    "warn",
                    f"{', '.join(endless)}: a handler that hangs holds its pool process for ever.",
                    f"Set time_limit to the longest a batch may take (Cloudflare: {DEFAULT_TIME_LIMIT} s).",
                )
            ]
        return [Finding("time limits", "ok", "The prefork pool ends a handler that exceeds its time_limit.")]
    own = [
        name
        for name, each in settings.items()
        if each.soft_time_limit is not None or each.time_limit not in {None, DEFAULT_TIME_LIMIT}
    ]
    if own:
        return [
            Finding(
                "time limits",
                "warn",
                f"{', '.join(own)}: the {pool} pool cannot end a handler, so its time limit has no effect.",
                "Use the prefork pool, or give the handler timeouts of its own.",
            )
        ]
    return [
        Finding(
            "time limits",
            "info",
            f"The {pool} pool cannot end a handler that hangs; it is reported in the log only.",
            "Use the prefork pool where a handler can hang.",
        )
    ]


def _dead_letters(settings: Mapping[str, ConsumerSettings]) -> list[Finding]:
    findings = []
    dropped = [name for name, each in settings.items() if each.dead_letter_queue is None]
    if dropped:
        findings.append(
            Finding(
                "dead letters",
                "info",
                f"{', '.join(dropped)}: a message that has used up its retries is dropped, as configured.",
                "Name a dead_letter_queue to keep such messages.",
            )
        )
    unread = [
        f"{name} → {each.dead_letter_queue}"
        for name, each in settings.items()
        if each.dead_letter_queue is not None and each.dead_letter_queue not in settings
    ]
    if unread:
        findings.append(
            Finding(
                "dead letters",
                "info",
                f"{', '.join(unread)}: failed messages stay there until somebody looks.",
                "Look now and then with cf.queues[name].peek(), or add a handler for the dead-letter queue.",
            )
        )
    if not findings:
        findings.append(Finding("dead letters", "ok", "Every dead-letter queue has a handler."))
    return findings


def _eager(conf: Mapping[str, Any]) -> list[Finding]:
    if not conf.get("task_always_eager"):
        return []
    return [
        Finding(
            "durability",
            "warn",
            "task_always_eager is on: tasks run inside the caller and nothing is stored.",
            "Turn it off outside tests.",
        )
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
