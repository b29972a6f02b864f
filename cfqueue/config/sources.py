"""Settings that do not come from a file: Celery's ``app.conf``, the environment, keywords of CFQueue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cfqueue.config.checks import check, shown
from cfqueue.config.settings import APPLICATION, CONSUMER, FOREIGN_VARIABLES, QUEUE, QUEUE_NAME
from cfqueue.config.suggestion import did_you_mean, nearest
from cfqueue.config.warning import warn
from cfqueue.config.wrangler import Given
from cfqueue.errors import ConfigurationError
from cfqueue.limits import Limits

_CONF_PREFIX = "cfqueue_"
_VARIABLE_PREFIX = "CFQUEUE_"


def from_conf(conf: Mapping[Any, Any]) -> dict[str, Given]:
    """Read the ``cfqueue_*`` keys of ``app.conf``, by setting; other keys are left alone.

    Capitals are taken too, as they stand in a Django settings module. A value of None is not set.
    Raises ConfigurationError when a value is wrong.
    """
    known = {s.conf_key: s for s in APPLICATION.values() if "app.conf" in s.sources}
    found: dict[str, Given] = {}
    for key, value in conf.items():
        name = key.lower() if isinstance(key, str) else ""
        if not name.startswith(_CONF_PREFIX):
            continue
        if name not in known:
            warn(f"app.conf: {key} is not a known setting; it is ignored.{did_you_mean(name, known)}")
        elif value is not None:
            where = f"app.conf: {key}"
            found[known[name].name] = Given(check(known[name], value, where), where)
    return found


def from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    """Read the ``CFQUEUE_*`` variables, by setting. An empty variable is not set.

    A variable with our prefix that resembles no setting is passed over without a word: Kubernetes
    makes such names for a service called cfqueue (``CFQUEUE_SERVICE_HOST``). Raises
    ConfigurationError when a value is wrong.
    """
    known = {s.variable: s for s in APPLICATION.values() if "environment" in s.sources}
    names = {variable.removeprefix(_VARIABLE_PREFIX): variable for variable in known}
    found: dict[str, Given] = {}
    for variable, text in environ.items():
        if not variable.startswith(_VARIABLE_PREFIX) or not text.strip() or variable in FOREIGN_VARIABLES:
            continue
        if variable in known:
            where = f"environment: {variable}"
            value = check(known[variable], text, where, written="environment")
            found[known[variable].name] = Given(value, where)
            continue
        match = nearest(variable.removeprefix(_VARIABLE_PREFIX), names, cutoff=0.75)
        if match is not None:
            warn(f"environment: {variable} is not a known setting. Did you mean {names[match]!r}?")
    return found


def from_keywords(keywords: Mapping[str, Any]) -> dict[str, Given]:
    """Check settings that were given to ``CFQueue`` itself; None is not given."""
    found: dict[str, Given] = {}
    for name, value in keywords.items():
        if name not in APPLICATION:
            raise ConfigurationError(f"CFQueue has no setting {name!r}.{did_you_mean(name, APPLICATION)}")
        if value is not None:
            where = f"CFQueue({name}=…)"
            found[name] = Given(check(APPLICATION[name], value, where), where)
    return found


def queue_settings(given: Given | None, limits: Limits) -> dict[str, dict[str, Given]]:
    """Take ``cfqueue_queues`` apart: by queue, the settings of its producer and its consumer.

    Raises ConfigurationError when a queue's name or a value is wrong.
    """
    if given is None:
        return {}
    known = CONSUMER | QUEUE
    found: dict[str, dict[str, Given]] = {}
    for queue, table in given.value.items():
        check(QUEUE_NAME, queue, f"{given.where}: the key")
        where = f"{given.where}[{queue!r}]"
        if not isinstance(table, Mapping):
            raise ConfigurationError(f"{where} is {shown(table)}; it must be a table of settings.")
        found[queue] = {}
        for name, value in table.items():
            place = f"{where}[{name!r}]"
            if name in known:
                found[queue][name] = Given(check(known[name], value, place, limits=limits), place)
            else:
                warn(f"{place} is not a known setting; it is ignored.{did_you_mean(str(name), known)}")
    return found
