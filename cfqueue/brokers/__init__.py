"""Broker drivers, one per family, behind the interface in ``base.py``.

A driver is done when the conformance suite in ``tests/brokers`` passes for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfqueue.errors import ConfigurationError

if TYPE_CHECKING:
    from cfqueue.brokers.base import Broker

#: What our own URLs begin with: ``cfqueue+sqlite:////abs/path.db``.
SQLITE_URL = "cfqueue+sqlite://"

__all__ = ["SQLITE_URL", "open_broker"]


def open_broker(url: str) -> Broker:
    """The driver for a broker URL; nothing is connected yet.

    Raises ConfigurationError for a URL that no driver serves.
    """
    if url.startswith(SQLITE_URL):
        from cfqueue.brokers.sql import SQLBroker

        return SQLBroker.at(url)
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        raise ConfigurationError(
            f"{url} is a database's URL. For the embedded broker write cfqueue+sqlite://{rest}."
        )
    raise ConfigurationError(
        f"cfqueue has no driver for {scheme}:// brokers yet. Point cfqueue (not Celery) at an embedded file: "
        "set cfqueue_broker_url in app.conf, or CFQUEUE_BROKER_URL, to 'cfqueue+sqlite:////absolute/path.db'. "
        "Celery's own tasks stay on their broker."
    )
