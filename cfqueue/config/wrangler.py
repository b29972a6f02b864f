"""Wrangler's schema: which part of a file applies, and what its queues say.

As in wrangler: ``env.<name>`` replaces the top level key by key; queues, vars and other bindings of
the top level do not carry over into an environment, migrations and triggers do. Keys that wrangler
knows and cfqueue has no use for are accepted silently; keys that neither knows warn. Unlike
wrangler, ranges are checked here and not by a server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cfqueue.config import keys
from cfqueue.config.checks import Written, check, shown
from cfqueue.config.files import Document
from cfqueue.config.settings import APPLICATION, CONSUMER, CONSUMER_TYPE, QUEUE, QUEUE_NAME, Setting
from cfqueue.config.suggestion import did_you_mean, nearest
from cfqueue.config.warning import warn
from cfqueue.errors import ConfigurationError, QueueConsumerConflict
from cfqueue.limits import Limits


class Given(NamedTuple):
    """A value that somebody wrote, and where: file and full key."""

    value: Any
    where: str


class DeclaredProducer(NamedTuple):
    """One entry of ``queues.producers``."""

    binding: str
    queue: str
    #: Seconds; None where nothing was written.
    delivery_delay: int | None
    where: str


@dataclass(frozen=True, slots=True)
class Section:
    """The part of a document that applies: the top level, or one ``env.<name>`` over it."""

    document: Document
    env: str | None
    own: Mapping[str, Any]

    @property
    def written(self) -> Written:
        """How values are written here: a mapping made in Python has None, a file has false and null."""
        return "python" if self.document.path is None else "file"

    def place(self, key: str) -> str:
        """Name the file and the full key, for a text."""
        return f"{self.document.label}: " + (f"env.{self.env}.{key}" if self.env else key)

    def get(self, key: str) -> Given | None:
        """Look up a top-level key, inherited where wrangler inherits."""
        if key in self.own:
            return Given(self.own[key], self.place(key))
        if key in keys.INHERITED and key in self.document.data:
            return Given(self.document.data[key], f"{self.document.label}: {key}")
        return None

    def table(self, key: str) -> Mapping[str, Any]:
        """Look up a key that must be a table; empty when it is not there."""
        given = self.get(key)
        return {} if given is None else _table(given)

    def tables(self, key: str) -> list[Given]:
        """Look up a key that must be a list of tables; empty when it is not there."""
        given = self.get(key)
        return [] if given is None else list_of_tables(given)


def select(document: Document, env: str | None) -> Section:
    """Choose the part of the document that applies, and warn of keys that nobody knows.

    Raises ConfigurationError when there is no such environment. (Where a file has no environments at
    all wrangler only warns, and then deploys without queues; here that is an error too.)
    """
    data, label = document.data, document.label
    _warn_unknown(data, keys.AT_TOP_LEVEL, f"{label}: ")
    environments = _table(Given(data.get("env", {}), f"{label}: env"))
    for name, table in environments.items():
        _warn_unknown(
            _table(Given(table, f"{label}: env.{name}")), keys.IN_ENVIRONMENT, f"{label}: env.{name}."
        )
    if env is None:
        return Section(document, None, data)
    if env not in environments:
        known = ", ".join(repr(name) for name in environments) or "none"
        raise ConfigurationError(
            f"{label}: there is no environment {env!r} (it was chosen by env=, cfqueue_env or CFQUEUE_ENV). "
            f"The file has: {known}.{did_you_mean(env, environments)}"
        )
    section = Section(document, env, environments[env])
    for key in keys.USED:
        if key in data and key not in section.own:
            warn(
                f"{section.place(key)} is missing, though {key!r} stands at the top level: environments "
                f"do not inherit it (as in wrangler), so it is empty here. Repeat it under env.{env}."
            )
    return section


def application(section: Section) -> dict[str, Given]:
    """Read the table ``[cfqueue]``: values of the environment win over those of the top level."""
    known = {name: setting for name, setting in APPLICATION.items() if "file" in setting.sources}
    top = Section(section.document, None, section.document.data)
    found: dict[str, Given] = {}
    for part in (top, section) if section.env else (top,):
        table, place = part.table(keys.OWN_TABLE), part.place(keys.OWN_TABLE)
        _warn_unknown(table, known, f"{place}.")
        for name in known.keys() & table.keys():
            where = f"{place}.{name}"
            found[name] = Given(check(known[name], table[name], where, written=part.written), where)
    return found


def producers(section: Section, limits: Limits) -> list[DeclaredProducer]:
    """Read ``queues.producers``. A producer without a queue gets wrangler's name for it."""
    found = []
    for given in _queue_entries(section, "producers"):
        entry: Mapping[str, Any] = given.value
        _warn_unknown(entry, keys.IN_PRODUCER, f"{given.where}.")
        binding = _required(QUEUE["binding"], given, section.written)
        delay = None
        if "delivery_delay" in entry:
            where = f"{given.where}.delivery_delay"
            setting = QUEUE["delivery_delay"]
            delay = check(setting, entry["delivery_delay"], where, limits=limits, written=section.written)
            warn(
                f"{where} applies here, but Cloudflare ignores it in a file since 2024 (there: wrangler "
                f"queues update <name> --delivery-delay-secs {delay})."
            )
        if "queue" in entry:
            queue = _required(QUEUE_NAME, given, section.written)
        else:
            queue = _provisioned_name(section, binding, given)
        found.append(DeclaredProducer(binding, queue, delay, given.where))
    return found


def consumers(section: Section, limits: Limits) -> dict[str, dict[str, Given]]:
    """Read ``queues.consumers``: by queue, the settings that are written there; no defaults.

    Raises QueueConsumerConflict when a queue is named twice, ConfigurationError when a value is
    wrong or the consumer is not a worker.
    """
    found: dict[str, dict[str, Given]] = {}
    places: dict[str, str] = {}
    for given in _queue_entries(section, "consumers"):
        entry: Mapping[str, Any] = given.value
        _warn_unknown(entry, keys.IN_CONSUMER, f"{given.where}.")
        queue = _required(QUEUE_NAME, given, section.written)
        _must_be_worker(entry, given)
        if queue in found:
            raise QueueConsumerConflict(
                f"{given.where}.queue is {queue!r}, which {places[queue]} consumes already. A queue has one "
                "consumer; join the two entries, or give this one a queue of its own."
            )
        places[queue] = given.where
        found[queue] = {
            name: Given(
                check(setting, entry[name], f"{given.where}.{name}", limits=limits, written=section.written),
                f"{given.where}.{name}",
            )
            for name, setting in CONSUMER.items()
            if name in entry
        }
    return found


def list_of_tables(given: Given) -> list[Given]:
    """Take a list of tables apart, or raise ConfigurationError."""
    if not isinstance(given.value, Sequence) or isinstance(given.value, str | bytes):
        raise ConfigurationError(f"{given.where} is {shown(given.value)}; it must be a list of tables.")
    entries = [Given(item, f"{given.where}[{index}]") for index, item in enumerate(given.value)]
    for entry in entries:
        _table(entry)
    return entries


def _table(given: Given) -> Mapping[str, Any]:
    if isinstance(given.value, Mapping):
        return given.value
    raise ConfigurationError(f"{given.where} is {shown(given.value)}; it must be a table.")


def _queue_entries(section: Section, key: str) -> list[Given]:
    queues, place = section.table("queues"), section.place("queues")
    if key == "producers":
        _warn_unknown(queues, keys.IN_QUEUES, f"{place}.")
    return list_of_tables(Given(queues[key], f"{place}.{key}")) if key in queues else []


def _must_be_worker(entry: Mapping[str, Any], given: Given) -> None:
    kind = entry.get("type", "worker")
    if isinstance(kind, str) and kind in CONSUMER_TYPE.choices:
        return
    hint = did_you_mean(kind, CONSUMER_TYPE.choices) if isinstance(kind, str) else ""
    raise ConfigurationError(
        f'{given.where}.type is {shown(kind)}. Only "worker" consumers can be configured in '
        f"your Wrangler configuration.{hint} Leave type out; a queue that is pulled needs no consumer here."
    )


def _provisioned_name(section: Section, binding: str, given: Given) -> str:
    """Name the queue as ``wrangler deploy`` does when it makes one itself: ``<script>-<binding>``."""
    script = section.get("name")
    if script is None:
        raise ConfigurationError(
            f"{given.where}.queue is missing. Name the queue, or give the file a name: then the queue is "
            "<name>-<binding>, as wrangler makes it."
        )
    name = f"{script.value}-{binding.lower().replace('_', '-')}"
    checked: str = check(QUEUE_NAME, name, f"{given.where}.queue (made of name and binding)")
    return checked


def _required(setting: Setting, given: Given, written: Written) -> str:
    entry: Mapping[str, Any] = given.value
    where = f"{given.where}.{setting.name}"
    if setting.name not in entry:
        near = next((str(key) for key in entry if nearest(str(key), [setting.name])), None)
        hint = "" if near is None else f" Did you mean it by {near!r}?"
        raise ConfigurationError(f"{where} is missing. {setting.doc}{hint}")
    value: str = check(setting, entry[setting.name], where, written=written)
    return value


def _warn_unknown(table: Mapping[Any, Any], known: Iterable[str], prefix: str) -> None:
    names = sorted(known)
    for key in table:
        if key not in names:
            warn(f"{prefix}{key} is not a known key; it is ignored.{did_you_mean(str(key), names)}")
