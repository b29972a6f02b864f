"""``CFQueue`` binds a Celery application to a configuration. The only place where the parts are joined."""

from __future__ import annotations

import functools
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cfqueue.brokers import SQLITE_URL, open_broker
from cfqueue.config import (
    MOST_DELAY_SECONDS,
    Config,
    ConfigurationWarning,
    binding_of,
    consumer_settings,
    load,
)
from cfqueue.env import Env
from cfqueue.errors import ConfigurationError, QueueConsumerConflict
from cfqueue.handler import Handler, Keywords, SharedHandler, keywords_of
from cfqueue.limits import Limits
from cfqueue.messages import TASK_PREFIX, ConsumerSettings, check_queue_name
from cfqueue.messages.invocation import count_arguments
from cfqueue.producer import Queue, QueueMetrics

if TYPE_CHECKING:
    from celery import Celery

    from cfqueue.brokers.base import Broker
    from cfqueue.consumer.child import Runner
    from cfqueue.consumer.service import Service

_lock = threading.RLock()
_instances: weakref.WeakSet[CFQueue] = weakref.WeakSet()
_shared: list[SharedHandler] = []

_WORKER_STEP = "cfqueue.consumer.step:WorkerStep"
_CONSUMER_STEP = "cfqueue.consumer.step:ConsumerStep"


def home() -> Path:
    """The folder of the embedded default: ``CFQUEUE_HOME``, else ``cfqueue`` in the user's data directory."""
    if chosen := os.environ.get("CFQUEUE_HOME"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path("~/Library/Application Support/cfqueue").expanduser()
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path("~/.local/share").expanduser()) / "cfqueue"


class Queues(Mapping[str, Queue]):
    """``cf.queues``: a handle for every queue. Iterates over the known ones; any valid name has a handle."""

    def __init__(self, cf: CFQueue) -> None:
        self._cf = cf
        self._handles: dict[str, Queue] = {}

    def __getitem__(self, name: str) -> Queue:
        if name not in self._handles:
            cf = self._cf
            self._handles[name] = Queue(
                name,
                lambda: cf.broker,
                limits=lambda: cf.config.limits,
                delivery_delay=lambda: cf.config.delivery_delay(name),
            )
        return self._handles[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cf.queue_names())

    def __len__(self) -> int:
        return len(self._cf.queue_names())

    def __contains__(self, name: object) -> bool:
        return name in self._cf.queue_names()


class CFQueue:
    """Cloudflare-style queues on a Celery application.

    Args:
        celery_app: the project's own application; without one, one is created when it is first needed.
        config: a path to ``wrangler.toml`` / ``.jsonc`` / ``.json``, a mapping of the same shape, or a ``Config``.
        database_url: for the parts of cfqueue that need a database; plain queues do not.

    Nothing is connected and no configuration is read before it is needed, so that modules with handlers
    can be imported anywhere.

    """

    def __init__(
        self,
        celery_app: Celery | None = None,
        config: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
        *,
        database_url: str | None = None,
    ) -> None:
        self._source = config
        self._keywords = {"database_url": database_url}
        self._celery_app: Celery | None = None
        self._created = False
        self._config: Config | None = None
        self._broker: Broker | None = None
        #: Handlers by queue.
        self.consumers: dict[str, Handler] = {}
        self._settings: dict[str, ConsumerSettings] = {}
        #: Queue -> the settings that somebody chose, and where.
        self._origins: dict[str, Mapping[str, str]] = {}
        self.queues = Queues(self)
        self.env = Env(self._binding, self._bindings)
        with _lock:
            _instances.add(self)
            for shared in _shared:
                self._add(shared.queue_name, shared.function, shared.keywords)
        if celery_app is not None:
            self.init_app(celery_app)

    @classmethod
    def of(cls, celery_app: Any) -> CFQueue | None:
        """The CFQueue that was bound to this Celery application, if any."""
        bound = getattr(celery_app, "__cfqueue__", None)
        return bound if isinstance(bound, cls) else None

    def init_app(self, celery_app: Celery) -> None:
        """Bind to a Celery application; for factories. Raises ConfigurationError when bound already."""
        if self._celery_app is not None and self._celery_app is not celery_app:
            raise ConfigurationError(
                "This CFQueue is bound to a Celery application already. Make one CFQueue per application."
            )
        if (other := self.of(celery_app)) is not None and other is not self:
            raise ConfigurationError(
                f"The Celery application {celery_app.main!r} has a CFQueue already; use that one "
                "(CFQueue.of(app)), so that each queue has one consumer."
            )
        if self._celery_app is None:
            # What was read before (cf.env in an import, say) did not know this application's settings.
            self._config = self._broker = None
            self._settings.clear()
        self._celery_app = celery_app
        celery_app.__cfqueue__ = self
        celery_app.steps["worker"].add(_WORKER_STEP)
        celery_app.steps["consumer"].add(_CONSUMER_STEP)
        _watch_workers()
        celery_app.on_after_finalize.connect(self._register_tasks, weak=False)
        if celery_app.finalized:
            self._register_tasks()

    @property
    def app(self) -> Celery:
        """The Celery application; created on the embedded default when none was given."""
        if self._celery_app is None:
            with _lock:
                if self._celery_app is None:
                    self._create_app()
        assert self._celery_app is not None
        return self._celery_app

    @property
    def config(self) -> Config:
        """The configuration from all its sources, read once, when it is first needed."""
        if self._config is None:
            with _lock:
                if self._config is None:
                    overrides = {} if self._celery_app is None else _conf_of(self._celery_app)
                    self._config = load(self._source, overrides=overrides, keywords=self._keywords)
                    self._check_consumers()
        return self._config

    @property
    def broker_url(self) -> str:
        """Where the queues are: ``cfqueue_broker_url`` / ``CFQUEUE_BROKER_URL``, else Celery's broker."""
        if self.config.broker_url:
            return self.config.broker_url
        conf = self.app.conf
        # Several URLs are alternatives for Celery, divided by semicolons; a queue is in one place.
        return str(conf.broker_write_url or conf.broker_url or "amqp://").partition(";")[0]

    @property
    def broker(self) -> Broker:
        """The broker's driver."""
        if self._broker is None:
            with _lock:
                if self._broker is None:
                    self._broker = open_broker(self.broker_url)
        return self._broker

    def queue(self, name: str, **settings: Any) -> Callable[[Callable[..., Any]], Handler]:
        """Decorate the handler of a queue: ``def handler(batch[, env[, ctx]])``, ``def`` or ``async def``.

        Args:
            name: 1 to 63 letters, digits and dashes.
            **settings: ``max_batch_size`` (1 to 100, default 10), ``max_batch_timeout`` (0 to 60 s, default 5),
                ``max_retries`` (0 to 100, default 3), ``retry_delay`` (0 to 86,400 s, default 0),
                ``dead_letter_queue`` (default ``<name>-dlq``; None drops exhausted messages),
                ``max_concurrency`` (1 to 250 batches over all workers, default: as many as there are slots),
                ``time_limit`` and ``soft_time_limit`` (seconds; prefork only).

        Raises:
            ConfigurationError: a setting is unknown or out of range.
            HandlerSignatureError: the function takes other arguments.
            QueueConsumerConflict: the queue has a handler already.

        """
        if callable(name):
            raise ConfigurationError('@cf.queue takes the name of the queue: write @cf.queue("name").')
        check_queue_name(name)
        keywords = keywords_of(settings)

        def decorate(function: Callable[..., Any]) -> Handler:
            return self._add(name, function, keywords)

        return decorate

    def settings_of(self, name: str) -> ConsumerSettings:
        """What applies to the consumer of a queue, from keyword, file, ``app.conf`` and defaults."""
        if name in self._settings:
            return self._settings[name]
        handler = self.consumers[name]
        found = consumer_settings(self.config, name, handler.keywords, handler.owner)
        self._origins[name] = found.origins
        settings = self._settings[name] = ConsumerSettings(
            found.queue,
            found.max_batch_size,
            found.max_batch_timeout,
            found.max_retries,
            found.retry_delay,
            found.dead_letter_queue,
            found.max_concurrency,
            found.time_limit,
            found.soft_time_limit,
        )
        return settings

    def queue_names(self) -> list[str]:
        """Every queue that is known here: produced to, consumed from, or a dead-letter queue."""
        names = {producer.queue for producer in self.config.producers.values()}
        for name, handler in self.consumers.items():
            names.add(name)
            if (dead := handler.settings.dead_letter_queue) is not None:
                names.add(dead)
        for name, consumer in self.config.consumers.items():
            names.add(name)
            if consumer.dead_letter_queue is not None:
                names.add(consumer.dead_letter_queue)
        return sorted(names)

    def metrics(self, queue: str) -> QueueMetrics:
        """What waits in a queue; what ``batch.metadata.metrics`` reads."""
        return self.queues[queue].metrics()

    def prepare_worker(self, worker: Any) -> None:
        """Leave for the pool's children, which inherit it, what they need to run batches."""
        from cfqueue.consumer.child import runners

        self._register_tasks()
        for name in self._served_by(worker):
            runners[self._key, name] = self._runner_for(worker, name)

    def make_service(self, worker: Any) -> Service | None:
        """The consumer for a worker, or None when it serves no queue of ours. Called by the bootstep."""
        from cfqueue.consumer.service import Service

        names = self._served_by(worker)
        if not names:
            return None
        return Service(
            app=self.app,
            key=self._key,
            hostname=worker.hostname,
            broker=self.broker,
            serving={name: self._runner_for(worker, name) for name in names},
            dead_letter_delay=self.config.delivery_delay,
            autoscaler=getattr(worker, "autoscaler", None),
        )

    def _runner_for(self, worker: Any, name: str) -> Runner:
        """The handler with this worker's own time limits (``--time-limit``, ``task_time_limit`` and the soft
        ones) where its settings name none: what people expect of tasks.
        """
        runner = self.consumers[name].runner()
        limits = {
            limit: value
            for limit in ("time_limit", "soft_time_limit")
            if limit not in self._origins[name] and (value := getattr(worker, limit, None))
        }
        return replace(runner, settings=replace(runner.settings, **limits))

    def _served_by(self, worker: Any) -> list[str]:
        """The queues of ours that ``-Q`` selected, or all that have a handler."""
        selected = getattr(worker, "cfqueue_queues", None)
        return list(self.consumers) if selected is None else [n for n in selected if n in self.consumers]

    @property
    def _key(self) -> str:
        """Names this application inside the pool's children, which inherit the memory of the worker."""
        return f"{self.app.main}:{id(self)}"

    def _add(self, name: str, function: Callable[..., Any], keywords: Keywords) -> Handler:
        arguments = count_arguments(function, name)
        with _lock:
            if (other := self.consumers.get(name)) is not None:
                if other.function is function:
                    return other
                raise QueueConsumerConflict(
                    f"Queue {name!r} has a handler already: {other.owner}. A queue has exactly one consumer "
                    "(as on Cloudflare); call both functions from one handler, or use two queues."
                )
            handler = Handler(self, name, function, arguments, keywords)
            if self._config is not None:
                # The configuration is known: a wrong keyword is an error here.
                consumer_settings(self._config, name, keywords, handler.owner)
            else:
                _check_keywords(name, handler)
            self.consumers[name] = handler
        if self._celery_app is not None and self._celery_app.finalized:
            self._register_tasks()
        return handler

    def _check_consumers(self) -> None:
        for name in self.consumers:
            self.settings_of(name)

    def _register_tasks(self, *_: Any, **__: Any) -> None:
        """Every handler has a task in Celery's registry, for ``delay``, ``inspect registered`` and routing."""
        app = self.app
        for handler in list(self.consumers.values()):
            if TASK_PREFIX + handler.name not in app.tasks:
                app.register_task(handler.make_task())

    def _create_app(self) -> None:
        from celery import Celery

        with warnings.catch_warnings():
            # It is read again with the application's own settings; its warnings come then.
            warnings.simplefilter("ignore", ConfigurationWarning)
            config = load(self._source, keywords=self._keywords)
        url = config.broker_url or f"{SQLITE_URL}/{quote(str(_data_folder(config) / 'queues.db'))}"
        app = Celery(config.name or "cfqueue", broker=url)
        app.conf.broker_connection_retry_on_startup = True
        self._created = True
        self.init_app(app)

    def _binding(self, name: str) -> Any:
        config = self.config
        if name in config.producers:
            return self.queues[config.producers[name].queue]
        if name in config.vars:
            return config.vars[name]
        for queue in self.queue_names():
            if binding_of(queue) == name:
                return self.queues[queue]
        raise KeyError(name)

    def _bindings(self) -> list[str]:
        config = self.config
        declared = {producer.queue for producer in config.producers.values()}
        named = {binding_of(queue) for queue in self.queue_names() if queue not in declared}
        return sorted({*config.producers, *config.vars, *named})

    def __repr__(self) -> str:
        return f"<CFQueue of {self._celery_app!r}, handlers: {', '.join(self.consumers) or 'none'}>"


def _data_folder(config: Config) -> Path:
    """The folder of the embedded default, made if it is not there. Raises ConfigurationError."""
    folder: Path | None = None
    try:
        folder = Path(config.home).expanduser().absolute() if config.home else home()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        raise ConfigurationError(
            f"The folder for cfqueue's data{'' if folder is None else f' ({folder})'} cannot be used: {error}. "
            "Set CFQUEUE_HOME to a folder that this user may write, or name a broker "
            "(CFQUEUE_BROKER_URL=cfqueue+sqlite:////absolute/path.db)."
        ) from error
    return folder


def shared_queue(name: str, **settings: Any) -> Callable[[Callable[..., Any]], SharedHandler]:
    """Register a handler in a reusable module that has no ``cf`` at hand, as Celery's ``shared_task`` does.

    Every CFQueue, made before or after, gets the handler. Takes the settings of ``CFQueue.queue``.
    """
    check_queue_name(name)
    keywords = keywords_of(settings)

    def decorate(function: Callable[..., Any]) -> SharedHandler:
        count_arguments(function, name)
        shared = SharedHandler(name, function, keywords, _current)
        with _lock:
            for other in _shared:
                if other.queue_name == name and other.function is not function:
                    raise QueueConsumerConflict(
                        f"Queue {name!r} has a shared handler already: {other.function.__module__}."
                        f"{other.function.__qualname__}. A queue has exactly one consumer (as on Cloudflare)."
                    )
            for cf in list(_instances):
                cf._add(name, function, keywords)
            _shared.append(shared)
        return shared

    return decorate


def _current() -> CFQueue:
    """The CFQueue of Celery's current application, else the only one there is."""
    from celery import current_app

    cf = CFQueue.of(current_app._get_current_object())
    if cf is not None:
        return cf
    with _lock:
        there = list(_instances)
    if len(there) == 1:
        return there[0]
    raise ConfigurationError(
        "A @shared_queue handler was used and there is no CFQueue for the current Celery application. "
        "Create one: cf = CFQueue(app)."
    )


def _check_keywords(name: str, handler: Handler) -> None:
    """The configuration is not read while modules are imported; the keywords alone can be checked.

    A deployment may have raised the longest delay, so that one is checked with the configuration.
    """
    anything = Config(limits=Limits(delay_seconds=MOST_DELAY_SECONDS))
    consumer_settings(anything, name, handler.keywords, handler.owner)


def _conf_of(app: Any) -> dict[str, Any]:
    """The application's own settings of ours: ``cfqueue_*``, or ``CFQUEUE_*`` as in a Django settings module."""
    found: dict[str, Any] = {}
    namespace = f"{app.namespace}_".lower() if getattr(app, "namespace", None) else ""
    for key in list(app.conf):
        name = key.lower().removeprefix(namespace) if isinstance(key, str) else ""
        if name.startswith("cfqueue_"):
            found[name] = app.conf[key]
    return found


@functools.cache
def _watch_workers() -> None:
    """Split ``-Q`` for workers of applications that have a CFQueue; connected once per process."""
    from celery.signals import celeryd_init

    celeryd_init.connect(_on_worker_init, weak=False)


def _on_worker_init(instance: Any = None, **_: Any) -> None:
    cf = CFQueue.of(getattr(instance, "app", None))
    if cf is not None:
        from cfqueue.consumer.step import split_queues

        split_queues(instance, lambda: cf.consumers, cf.queue_names)
