"""``load``: all sources joined into one ``Config``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cfqueue.config import producers, sources, wrangler
from cfqueue.config.checks import check, shown
from cfqueue.config.consumers import resolve
from cfqueue.config.files import Document, read
from cfqueue.config.model import Config, ConsumerConfig
from cfqueue.config.settings import APPLICATION, CONSUMER, QUEUE, QUEUE_NAME
from cfqueue.config.warning import warn
from cfqueue.config.wrangler import Given, Section
from cfqueue.errors import ConfigurationError
from cfqueue.limits import Limits

_NOTHING = Document({}, "no file")


def load(
    source: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
    *,
    env: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    keywords: Mapping[str, Any] | None = None,
) -> Config:
    """Read the configuration from all its sources; ``cfqueue.config`` says which one wins.

    ``source`` is a path, wrangler's data as a mapping, or a finished ``Config``, which is checked and
    returned as it is; None stands for the file that CFQUEUE_CONFIG or ``cfqueue_config`` names, if any.
    ``env`` chooses an ``env.<name>`` of the file; None leaves it to CFQUEUE_ENV and ``cfqueue_env``,
    an empty text is the top level in any case. ``overrides`` is Celery's ``app.conf`` (keys that are
    not ``cfqueue_*`` are left alone), ``environ`` the environment (None: the process's own),
    ``keywords`` what was given to ``CFQueue`` itself, such as ``database_url`` (None is not given).

    Raises ConfigurationError; its text names file and key, the value, and what is allowed.
    """
    if isinstance(source, Config):
        return _checked(source)
    given = sources.from_conf(overrides or {})
    given |= sources.from_environment(os.environ if environ is None else environ)
    given |= sources.from_keywords(keywords or {})
    document = _document(source if source is not None else _value(given, "config"))
    chosen = (env if env is not None else _value(given, "env")) or None
    # Without a file there is nothing to choose from: CFQUEUE_ENV may be set for other programs.
    section = wrangler.select(document, None if document is _NOTHING else chosen)
    given = wrangler.application(section) | given
    limits = _limits(given)
    per_queue = sources.queue_settings(given.get("queues"), limits)
    return Config(
        producers=producers.join(section, per_queue, given.get("vars"), limits),
        consumers=_consumers(section, per_queue, limits),
        vars=_copy({**section.table("vars"), **(_value(given, "vars") or {})}),
        durable_objects=_copy(section.table("durable_objects")),
        migrations=_tables(section, "migrations"),
        kv_namespaces=_tables(section, "kv_namespaces"),
        d1_databases=_tables(section, "d1_databases"),
        triggers=_copy(section.table("triggers")),
        limits=limits,
        broker_url=_value(given, "broker_url"),
        database_url=_value(given, "database_url"),
        api_tokens=_value(given, "api_tokens") or (),
        account_id=_value(given, "account_id"),
        app=_value(given, "app"),
        home=_value(given, "home"),
        name=_script_name(section),
        env=section.env,
        source=None if document.path is None else str(document.path),
    )


def _document(source: Any) -> Document:
    if source is None:
        return _NOTHING
    if isinstance(source, Mapping):
        return Document(source, "config")
    if isinstance(source, str | os.PathLike):
        return read(Path(source))
    raise ConfigurationError(
        f"config is a {type(source).__name__}; it must be a path, a mapping or a cfqueue.config.Config."
    )


def _value(given: Mapping[str, Given], name: str) -> Any:
    return given[name].value if name in given else None


def _limits(given: Mapping[str, Given]) -> Limits:
    def number(name: str) -> int:
        value: int = given[name].value if name in given else APPLICATION[name].default
        return value

    message_bytes = number("max_message_bytes")
    send_batch_bytes = number("max_send_batch_bytes")
    if send_batch_bytes < message_bytes:
        if "max_send_batch_bytes" in given:
            warn(
                f"{given['max_send_batch_bytes'].where} is {send_batch_bytes:,}, less than the "
                f"{message_bytes:,} bytes of one message: the largest messages can only be sent alone."
            )
        else:
            send_batch_bytes = message_bytes
    return Limits(
        message_bytes=message_bytes,
        send_batch_count=number("max_send_batch_count"),
        send_batch_bytes=send_batch_bytes,
        delay_seconds=number("max_delay_seconds"),
    )


def _consumers(
    section: Section, per_queue: Mapping[str, Mapping[str, Given]], limits: Limits
) -> dict[str, ConsumerConfig]:
    given = wrangler.consumers(section, limits)
    for queue, settings in per_queue.items():
        mine = {name: value for name, value in settings.items() if name in CONSUMER}
        if mine:
            given[queue] = given.get(queue, {}) | mine
    found = {queue: resolve(queue, settings) for queue, settings in given.items()}
    _warn_of_circles(found)
    return found


def _warn_of_circles(consumers: Mapping[str, ConsumerConfig]) -> None:
    """Warn where dead-letter queues lead back: a message that always fails would never rest."""
    for first, consumer in consumers.items():
        path, queue = [first], consumer.dead_letter_queue
        while queue is not None and queue in consumers and queue not in path:
            path.append(queue)
            queue = consumers[queue].dead_letter_queue
        # Each circle is told once, from the name that comes first.
        if queue == first == min(path):
            circle = " → ".join([*path, first])
            warn(f"The dead-letter queues form a circle: {circle}. A message that always fails never rests.")


def _tables(section: Section, key: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(_copy(given.value) for given in section.tables(key))


def _copy(value: Any) -> Any:
    """Copy tables and lists, so that a later change of the caller's does not reach us."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _script_name(section: Section) -> str | None:
    name = section.get("name")
    if name is None or isinstance(name.value, str):
        return None if name is None else name.value
    raise ConfigurationError(f"{name.where} is {shown(name.value)}; it must be a text.")


def _checked(config: Config) -> Config:
    """Hold a Config that was made by hand against the same table."""
    limits = config.limits
    for binding, producer in config.producers.items():
        where = f"Config.producers[{binding!r}]"
        check(QUEUE["binding"], binding, f"{where}: the key")
        check(QUEUE_NAME, producer.queue, f"{where}.queue")
        check(QUEUE["delivery_delay"], producer.delivery_delay, f"{where}.delivery_delay", limits=limits)
        _must_be_key(binding, producer.binding, f"{where}.binding")
    for queue, consumer in config.consumers.items():
        where = f"Config.consumers[{queue!r}]"
        check(QUEUE_NAME, queue, f"{where}: the key")
        _must_be_key(queue, consumer.queue, f"{where}.queue")
        values = {name: (getattr(consumer, name), f"{where}.{name}") for name in CONSUMER}
        resolve(
            queue,
            {
                name: Given(check(CONSUMER[name], value, place, limits=limits), place)
                for name, (value, place) in values.items()
            },
        )
    for name in ("broker_url", "database_url", "api_tokens", "account_id", "app", "home"):
        check(APPLICATION[name], getattr(config, name), f"Config.{name}")
    return config


def _must_be_key(key: str, value: object, where: str) -> None:
    if value != key:
        raise ConfigurationError(f"{where} is {shown(value)}; it must be the same as its key.")
