"""The table of all settings. Validation, did-you-mean and the printed reference are made from it.

Three tables, by what a setting belongs to:

* ``APPLICATION``: one value for a program. Reached as ``[cfqueue] <name>`` in a file, as
  ``cfqueue_<name>`` in ``app.conf`` and as ``CFQUEUE_<NAME>`` in the environment, where it says so.
* ``CONSUMER``: how a queue is consumed. In a file under ``queues.consumers``, in ``app.conf`` under
  ``cfqueue_queues["<queue>"]``, in Python a keyword of ``@cf.queue``.
* ``QUEUE``: what belongs to a queue's producers. In a file under ``queues.producers``, in
  ``app.conf`` under ``cfqueue_queues["<queue>"]``.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

from cfqueue import limits

Kind: TypeAlias = Literal["integer", "number", "text", "url", "list", "queue", "binding", "choice", "table"]
Source: TypeAlias = Literal["file", "app.conf", "environment", "keyword"]

#: The largest size that can be allowed: SQLite's own limit for one value (SQLITE_MAX_LENGTH).
MOST_BYTES = 1_000_000_000
#: The longest delay that can be allowed: a year of 365 days.
MOST_DELAY_SECONDS = 31_536_000
#: The longest time limit: a week. A handler that runs longer wants no limit, and can say so.
MOST_TIME_LIMIT = 604_800

_EVERYWHERE: tuple[Source, ...] = ("file", "app.conf", "environment")
_QUEUES = "developers.cloudflare.com/queues/configuration/configure-queues"
_PLATFORM = "developers.cloudflare.com/queues/platform/limits"
_OWN = "cfqueue"


class Setting(NamedTuple):
    """One setting: its name, what it may be, where it may be written, and what it does.

    (A named tuple, as a data class of this width alone would cost a host's import a millisecond.)
    """

    name: str
    kind: Kind
    doc: str
    sources: tuple[Source, ...]
    default: Any = None
    #: Of numbers. Both ends are allowed values, but for ``above_minimum``.
    minimum: int = 0
    maximum: int = 0
    above_minimum: bool = False
    unit: str = ""
    #: A field of ``limits.Limits`` that takes the place of ``maximum``.
    limit: str | None = None
    choices: tuple[str, ...] = ()
    #: What None means; empty when None is not allowed.
    none: str = ""
    #: In a file, where TOML has no null, ``false`` is None.
    false_is_none: bool = False
    #: In a file, ``null`` is None. Not where a null by mistake would lose messages.
    null_in_file: bool = True
    #: The value is never printed.
    secret: bool = False
    #: Where range and default come from.
    origin: str = _OWN

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return "CFQUEUE_" + self.name.upper()

    @property
    def conf_key(self) -> str:
        """Its name in Celery's ``app.conf``."""
        return "cfqueue_" + self.name


def _table(*settings: Setting) -> dict[str, Setting]:
    return {setting.name: setting for setting in settings}


APPLICATION: dict[str, Setting] = _table(
    Setting(
        "config",
        "text",
        "Path of the configuration file: wrangler.toml, wrangler.jsonc or wrangler.json.",
        ("app.conf", "environment"),
        none="no file",
    ),
    Setting(
        "env",
        "text",
        "Which `env.<name>` of the file applies; as in wrangler, queues and vars of the top level do "
        "not carry over into it.",
        ("app.conf", "environment"),
        none="the top level of the file",
    ),
    Setting(
        "broker_url",
        "url",
        "Broker of the queues, where it is not that of the Celery app.",
        _EVERYWHERE,
        none="the Celery app's own; the embedded one where CFQueue creates the app",
        secret=True,
    ),
    Setting(
        "database_url",
        "url",
        "SQLAlchemy URL of the database for jobs, steps, objects and statistics.",
        _EVERYWHERE,
        none="a SQLite file in the user's data directory",
        secret=True,
    ),
    Setting(
        "max_message_bytes",
        "integer",
        "Largest encoded body of one message.",
        _EVERYWHERE,
        default=limits.MAX_MESSAGE_BYTES,
        minimum=1,
        maximum=MOST_BYTES,
        unit="bytes",
        origin=_PLATFORM,
    ),
    Setting(
        "max_send_batch_count",
        "integer",
        "Most messages in one send_batch.",
        _EVERYWHERE,
        default=limits.MAX_SEND_BATCH_COUNT,
        minimum=1,
        maximum=100_000,
        unit="messages",
        origin=_PLATFORM,
    ),
    Setting(
        "max_send_batch_bytes",
        "integer",
        "Most encoded bytes in one send_batch, summed; where it is not set, it is at least "
        "max_message_bytes.",
        _EVERYWHERE,
        default=limits.MAX_SEND_BATCH_BYTES,
        minimum=1,
        maximum=MOST_BYTES,
        unit="bytes",
        origin=_PLATFORM,
    ),
    Setting(
        "max_delay_seconds",
        "integer",
        "Longest delay of a message or a retry.",
        _EVERYWHERE,
        default=limits.MAX_DELAY_SECONDS,
        minimum=0,
        maximum=MOST_DELAY_SECONDS,
        unit="seconds",
        origin=_PLATFORM,
    ),
    Setting(
        "queues",
        "table",
        "Settings by queue, for projects without a file: {'jobs': {'max_retries': 5}}.",
        ("app.conf",),
        none="none",
    ),
    Setting(
        "vars",
        "table",
        "Plain values that handlers read as env.<NAME>; each takes the place of the file's.",
        ("app.conf",),
        none="none",
    ),
    Setting(
        "api_tokens",
        "list",
        "Tokens that the HTTP API accepts; in the environment separated by commas.",
        ("app.conf", "environment"),
        default=(),
        secret=True,
    ),
    Setting(
        "account_id",
        "text",
        "The account in the paths of the Cloudflare REST API.",
        ("app.conf", "environment"),
        none="any account",
    ),
    Setting(
        "app",
        "text",
        "The app that the cfqueue command works on, as module:attribute; the option --app wins.",
        ("environment",),
        none="none",
    ),
    Setting(
        "home",
        "text",
        "Folder for the embedded broker's file.",
        ("environment",),
        none="the user's data directory",
    ),
)

CONSUMER: dict[str, Setting] = _table(
    Setting(
        "max_batch_size",
        "integer",
        "Most messages in one batch.",
        ("file", "app.conf", "keyword"),
        default=limits.DEFAULT_MAX_BATCH_SIZE,
        minimum=limits.MAX_BATCH_SIZE_RANGE[0],
        maximum=limits.MAX_BATCH_SIZE_RANGE[1],
        unit="messages",
        origin=_QUEUES,
    ),
    Setting(
        "max_batch_timeout",
        "integer",
        "Longest wait for a batch to fill, from its first message.",
        ("file", "app.conf", "keyword"),
        default=limits.DEFAULT_MAX_BATCH_TIMEOUT,
        minimum=limits.MAX_BATCH_TIMEOUT_RANGE[0],
        maximum=limits.MAX_BATCH_TIMEOUT_RANGE[1],
        unit="seconds",
        origin=_QUEUES,
    ),
    Setting(
        "max_retries",
        "integer",
        "Most retries of a message: N gives at most N + 1 deliveries.",
        ("file", "app.conf", "keyword"),
        default=limits.DEFAULT_MAX_RETRIES,
        minimum=limits.MAX_RETRIES_RANGE[0],
        maximum=limits.MAX_RETRIES_RANGE[1],
        unit="retries",
        origin=_QUEUES,
    ),
    Setting(
        "retry_delay",
        "integer",
        "Wait before a failed message is delivered again, unless its retry names another.",
        ("file", "app.conf", "keyword"),
        default=limits.DEFAULT_RETRY_DELAY,
        minimum=0,
        maximum=limits.MAX_DELAY_SECONDS,
        limit="delay_seconds",
        unit="seconds",
        origin=_QUEUES,
    ),
    Setting(
        "dead_letter_queue",
        "queue",
        "Where exhausted messages go; by default <queue>-dlq, shortened with a hash beyond 63 characters.",
        ("file", "app.conf", "keyword"),
        default="<queue>-dlq",
        none="exhausted messages are dropped",
        false_is_none=True,
        null_in_file=False,
        origin=_QUEUES,
    ),
    Setting(
        "max_concurrency",
        "integer",
        "Most batches in flight for this queue across all its workers.",
        ("file", "app.conf", "keyword"),
        minimum=limits.MAX_CONCURRENCY_RANGE[0],
        maximum=limits.MAX_CONCURRENCY_RANGE[1],
        unit="batches",
        none="as many as the workers have slots",
        origin=_QUEUES,
    ),
    Setting(
        "time_limit",
        "number",
        "Wall-clock time after which a running batch is killed (on pools that can).",
        ("file", "app.conf", "keyword"),
        default=limits.DEFAULT_TIME_LIMIT,
        minimum=0,
        above_minimum=True,
        maximum=MOST_TIME_LIMIT,
        unit="seconds",
        none="no limit",
        false_is_none=True,
        origin=_PLATFORM,
    ),
    Setting(
        "soft_time_limit",
        "number",
        "Time after which SoftTimeLimitExceeded is raised in the handler (prefork); below time_limit.",
        ("file", "app.conf", "keyword"),
        minimum=0,
        above_minimum=True,
        maximum=MOST_TIME_LIMIT,
        unit="seconds",
        none="no limit",
        false_is_none=True,
        origin="Celery",
    ),
)

QUEUE: dict[str, Setting] = _table(
    Setting(
        "binding",
        "binding",
        "Name of the queue in env; by default its name in capitals, dashes as underscores.",
        ("file", "app.conf"),
        default="<QUEUE>",
        origin=_QUEUES,
    ),
    Setting(
        "delivery_delay",
        "integer",
        "Delay of messages that are sent without one. Cloudflare ignores it in a file since 2024; "
        "here it applies.",
        ("file", "app.conf"),
        default=0,
        minimum=0,
        maximum=limits.MAX_DELAY_SECONDS,
        limit="delay_seconds",
        unit="seconds",
        origin=_QUEUES,
    ),
)

#: Names that stand in a file beside the settings above.
QUEUE_NAME = Setting("queue", "queue", "The queue's name.", ("file",))
CONSUMER_TYPE = Setting("type", "choice", "Only worker.", ("file",), default="worker", choices=("worker",))

#: Variables with our prefix that are read elsewhere (by the test suite and the build).
FOREIGN_VARIABLES = frozenset({"CFQUEUE_REQUIRE_SERVICES"})
