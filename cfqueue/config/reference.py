"""The settings as a page for people, printed from the table so that it cannot disagree with it."""

from __future__ import annotations

from collections.abc import Iterable

from cfqueue.config.checks import allowed
from cfqueue.config.settings import APPLICATION, CONSUMER, QUEUE, Setting

_HEAD = "| setting | allowed | default | what it does | written as | source |\n|---|---|---|---|---|---|"


def as_markdown() -> str:
    """All settings in Markdown tables: consumers, queues, application."""
    parts = [
        ("Consumers", CONSUMER.values()),
        ("Producers", QUEUE.values()),
        ("The application", APPLICATION.values()),
    ]
    return "\n\n".join(f"## {title}\n\n{_rows(settings)}" for title, settings in parts) + "\n"


def written_as(setting: Setting) -> list[str]:
    """Every way to write a setting: key of a file, key of app.conf, variable, keyword."""
    if setting.name in CONSUMER:
        file, conf = f"queues.consumers[].{setting.name}", f'cfqueue_queues["<queue>"]["{setting.name}"]'
    elif setting.name in QUEUE:
        file, conf = f"queues.producers[].{setting.name}", f'cfqueue_queues["<queue>"]["{setting.name}"]'
    else:
        file, conf = f"cfqueue.{setting.name}", setting.conf_key
    ways = {
        "file": file,
        "app.conf": conf,
        "environment": setting.variable,
        "keyword": f"@cf.queue({setting.name}=…)",
    }
    return [ways[source] for source in setting.sources]


def _rows(settings: Iterable[Setting]) -> str:
    return "\n".join([_HEAD, *(_row(setting) for setting in settings)])


def _row(setting: Setting) -> str:
    default = setting.none if setting.default is None else _plain(setting.default)
    ways = ", ".join(f"`{way}`" for way in written_as(setting))
    cells = [f"`{setting.name}`", allowed(setting), default, setting.doc, ways, setting.origin]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _plain(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "none" if value == () else f"`{value}`"
