"""What a configuration is once it has been read: frozen data, nothing left to check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cfqueue import limits as numbers
from cfqueue.config.names import dead_letter_name
from cfqueue.limits import CLOUDFLARE, Limits


@dataclass(frozen=True, slots=True)
class Producer:
    """A queue as it hangs in ``env``."""

    binding: str
    queue: str
    #: Seconds; what a message that is sent without a delay gets.
    delivery_delay: int = 0


@dataclass(frozen=True, slots=True)
class ConsumerConfig:
    """How one queue is consumed; every value resolved. Ranges: ``cfqueue.config.settings.CONSUMER``."""

    queue: str
    #: Messages.
    max_batch_size: int = numbers.DEFAULT_MAX_BATCH_SIZE
    #: Seconds.
    max_batch_timeout: int = numbers.DEFAULT_MAX_BATCH_TIMEOUT
    #: At most this plus one deliveries.
    max_retries: int = numbers.DEFAULT_MAX_RETRIES
    #: Seconds.
    retry_delay: int = numbers.DEFAULT_RETRY_DELAY
    #: None drops exhausted messages. The empty default becomes ``<queue>-dlq``.
    dead_letter_queue: str | None = ""
    #: None: as many as the workers have slots.
    max_concurrency: int | None = None
    #: Seconds; None: no limit.
    time_limit: float | None = numbers.DEFAULT_TIME_LIMIT
    #: Seconds; None: no limit.
    soft_time_limit: float | None = None
    #: Where each value was written that is not a default: setting to file and key.
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.dead_letter_queue == "":
            object.__setattr__(self, "dead_letter_queue", dead_letter_name(self.queue))


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that was configured. ``load`` makes it; made by hand it is checked by ``load`` too."""

    #: By binding.
    producers: Mapping[str, Producer] = field(default_factory=dict)
    #: By queue: the consumers that a file or ``app.conf`` names. Handlers may add more.
    consumers: Mapping[str, ConsumerConfig] = field(default_factory=dict)
    #: Plain values for ``env``.
    vars: Mapping[str, Any] = field(default_factory=dict)
    #: The tables below are kept as they were written, for the rooms that use them.
    durable_objects: Mapping[str, Any] = field(default_factory=dict)
    migrations: tuple[Mapping[str, Any], ...] = ()
    kv_namespaces: tuple[Mapping[str, Any], ...] = ()
    d1_databases: tuple[Mapping[str, Any], ...] = ()
    triggers: Mapping[str, Any] = field(default_factory=dict)
    #: Not printed: URLs carry passwords.
    broker_url: str | None = field(default=None, repr=False)
    database_url: str | None = field(default=None, repr=False)
    limits: Limits = CLOUDFLARE
    api_tokens: tuple[str, ...] = field(default=(), repr=False)
    account_id: str | None = None
    #: ``module:attribute`` for the command line.
    app: str | None = None
    #: Folder of the embedded broker's file.
    home: str | None = None
    #: The file's own ``name``: what wrangler calls the Worker.
    name: str | None = None
    #: The ``env.<name>`` that was chosen.
    env: str | None = None
    #: The file that was read, as it was given; None without one.
    source: str | None = None

    def delivery_delay(self, queue: str) -> int:
        """Seconds that messages to ``queue`` wait which are sent without a delay; 0 by default."""
        return next((p.delivery_delay for p in self.producers.values() if p.queue == queue), 0)
