"""The producers of all sources joined: one queue for a binding, one delivery delay for a queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NoReturn

from cfqueue.config import wrangler
from cfqueue.config.model import Producer
from cfqueue.config.names import binding_of
from cfqueue.config.wrangler import Given, Section, list_of_tables
from cfqueue.errors import ConfigurationError
from cfqueue.limits import Limits


def join(
    section: Section,
    per_queue: Mapping[str, Mapping[str, Given]],
    conf_vars: Given | None,
    limits: Limits,
) -> dict[str, Producer]:
    """Join ``queues.producers`` with ``cfqueue_queues``, by binding.

    Raises ConfigurationError when a name in ``env`` is used twice (wrangler refuses that too), or
    when one queue has two delivery delays.
    """
    taken = _other_bindings(section, conf_vars)
    declared = wrangler.producers(section, limits)
    delays = _delays(declared)
    found: dict[str, Producer] = {}
    for entry in declared:
        if entry.binding in taken:
            _refuse(f"{entry.where}.binding", entry.binding, taken[entry.binding])
        taken[entry.binding] = entry.where
        found[entry.binding] = Producer(entry.binding, entry.queue, delays.get(entry.queue, 0))
    for queue, settings in per_queue.items():
        if "delivery_delay" in settings:
            delay = settings["delivery_delay"].value
            mine = [producer for producer in found.values() if producer.queue == queue]
            found |= {p.binding: replace(p, delivery_delay=delay) for p in mine}
        _add(found, taken, queue, settings)
    return found


def _add(
    found: dict[str, Producer], taken: dict[str, str], queue: str, settings: Mapping[str, Given]
) -> None:
    """Make the producer that ``cfqueue_queues`` asks for, by a binding or by a delay of its own."""
    mine = [producer for producer in found.values() if producer.queue == queue]
    if "binding" in settings:
        binding, where = settings["binding"].value, settings["binding"].where
    elif "delivery_delay" in settings and not mine:
        binding, where = binding_of(queue), f"{settings['delivery_delay'].where} (whose default binding)"
    else:
        return
    if any(producer.binding == binding for producer in mine):
        return
    if binding in taken:
        _refuse(where, binding, taken[binding])
    delay = settings["delivery_delay"].value if "delivery_delay" in settings else None
    if delay is None:
        delay = mine[0].delivery_delay if mine else 0
    taken[binding] = where
    found[binding] = Producer(binding, queue, delay)


def _delays(declared: Iterable[wrangler.DeclaredProducer]) -> dict[str, int]:
    delays: dict[str, int] = {}
    places: dict[str, str] = {}
    for entry in declared:
        if entry.delivery_delay is None:
            continue
        if delays.setdefault(entry.queue, entry.delivery_delay) != entry.delivery_delay:
            raise ConfigurationError(
                f"{entry.where}.delivery_delay is {entry.delivery_delay}, but {places[entry.queue]} has "
                f"{delays[entry.queue]} for the same queue {entry.queue!r}. A queue has one delivery delay; "
                "write the same in both."
            )
        places.setdefault(entry.queue, entry.where)
    return delays


def _other_bindings(section: Section, conf_vars: Given | None) -> dict[str, str]:
    """Names in ``env`` that are not queues, with their places."""
    taken = {name: section.place(f"vars.{name}") for name in section.table("vars")}
    if conf_vars is not None:
        taken |= {name: f"{conf_vars.where}[{name!r}]" for name in conf_vars.value}
    objects = section.table("durable_objects").get("bindings", [])
    entries = [
        ("name", list_of_tables(Given(objects, section.place("durable_objects.bindings")))),
        ("binding", section.tables("kv_namespaces")),
        ("binding", section.tables("d1_databases")),
    ]
    for field, tables in entries:
        for given in tables:
            name = given.value.get(field)
            if not isinstance(name, str):
                continue
            if name in taken:
                _refuse(f"{given.where}.{field}", name, taken[name])
            taken[name] = given.where
    return taken


def _refuse(where: str, binding: str, other: str) -> NoReturn:
    raise ConfigurationError(
        f"{where} is {binding!r}, which {other} uses already. "
        "Each binding is one name in env; choose another."
    )
