"""``CFQueue`` and the decorator: binding, conflicts, wrong handlers, settings from all sources, eager mode."""

from __future__ import annotations

import functools
import gc
import os
import statistics
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Retry

import cfqueue
from cfqueue import CFQueue, ConfigurationError, ConfigurationWarning, QueueConsumerConflict, shared_queue
from cfqueue import app as front
from cfqueue.errors import HandlerSignatureError, InvalidQueueName
from cfqueue.testing import create_message_batch, get_queue_result

URL = "cfqueue+sqlite:////nowhere/q.db"


def celery(name: str = "project", **conf: Any) -> Celery:
    app = Celery(name, broker=URL, set_as_current=False)
    app.conf.update(conf)
    return app


@pytest.fixture
def cf() -> CFQueue:
    return CFQueue(celery())


@pytest.fixture
def shared() -> Iterator[None]:
    """Shared handlers end with the test."""
    before = list(front._shared)
    yield
    front._shared[:] = before
    gc.collect()


def python(code: str, **environment: str) -> str:
    path = os.pathsep.join([str(Path(cfqueue.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    dropped = ("CFQUEUE_", "PYTHONDONTWRITEBYTECODE")  # compiling cfqueue each time is no cost of a host's
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env={**kept, "PYTHONPATH": path, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Binding to an application


def test_a_factory_binds_later() -> None:
    cf = CFQueue()

    @cf.queue("jobs")
    def handle(batch: Any) -> None: ...

    app = celery()
    cf.init_app(app)
    assert CFQueue.of(app) is cf
    assert cf.app is app
    assert "cfqueue.queue.jobs" in app.tasks
    cf.init_app(app)  # twice is once


def test_one_application_has_one_cfqueue() -> None:
    app = celery()
    cf = CFQueue(app)
    with pytest.raises(ConfigurationError, match="'project' has a CFQueue already"):
        CFQueue(app)
    with pytest.raises(ConfigurationError, match="bound to a Celery application already"):
        cf.init_app(celery("other"))
    assert CFQueue.of(celery()) is None
    assert CFQueue.of(object()) is None


def test_without_an_application_one_is_made_on_the_embedded_broker(tmp_path: Path) -> None:
    out = python(
        """
        import os
        from cfqueue import CFQueue
        cf = CFQueue()
        assert not os.path.exists(os.environ["CFQUEUE_HOME"]), "nothing before it is needed"
        @cf.queue("jobs")
        def handle(batch): ...
        handle.send(1)
        print(cf.app.conf.broker_url, cf.queues["jobs"].metrics().backlog_count)
        """,
        CFQUEUE_HOME=str(tmp_path / "home"),
    )
    url, count = out.split()
    assert url.startswith("cfqueue+sqlite:////")
    assert url.endswith("/queues.db")
    assert count == "1"


def test_the_broker_is_celerys_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CFQueue(celery()).broker_url == URL
    assert CFQueue(celery(cfqueue_broker_url="cfqueue+sqlite:////conf.db")).broker_url.endswith("conf.db")
    monkeypatch.setenv("CFQUEUE_BROKER_URL", "cfqueue+sqlite:////environment.db")
    assert CFQueue(celery()).broker_url.endswith("environment.db")


def test_a_django_style_namespace_is_read() -> None:
    app = Celery("django", broker=URL, set_as_current=False)

    class Settings:
        CELERY_TASK_ACKS_LATE = True
        CELERY_CFQUEUE_MAX_MESSAGE_BYTES = 1000
        CFQUEUE_MAX_SEND_BATCH_COUNT = 5

    app.config_from_object(Settings, namespace="CELERY")
    assert CFQueue(app).config.limits.message_bytes == 1000
    plain = celery(CFQUEUE_MAX_SEND_BATCH_COUNT=5)
    assert CFQueue(plain).config.limits.send_batch_count == 5


# Handlers


def good_handlers() -> dict[str, tuple[Any, int]]:
    class Callable:
        def __call__(self, batch: Any, env: Any) -> None: ...

        def method(self, batch: Any) -> None: ...

    async def coroutine(batch: Any, env: Any, ctx: Any) -> None: ...

    return {
        "one": (lambda batch: None, 1),
        "two": (lambda batch, env: None, 2),
        "three": (lambda batch, env, ctx: None, 3),
        "any": (lambda *args: None, 3),
        "defaults": (lambda batch, env=None: None, 2),
        "coroutine": (coroutine, 3),
        "instance": (Callable(), 2),
        "method": (Callable().method, 1),
        "partial": (functools.partial(lambda x, batch: None, 1), 1),
    }


@pytest.mark.parametrize("kind", good_handlers())
def test_a_handler_takes_one_two_or_three_arguments(cf: CFQueue, kind: str) -> None:
    function, count = good_handlers()[kind]
    handler = cf.queue("jobs")(function)
    assert handler.arguments == count
    assert handler.function is function


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda: None, r"signature \(\)"),
        (lambda a, b, c, d: None, r"\(a, b, c, d\)"),
        (lambda *, batch: None, "positional"),
        (lambda batch, *, env: None, "positional"),
        (5, "not callable"),
    ],
    ids=["none", "four", "keyword-only", "a keyword too many", "no function"],
)
def test_a_handler_with_other_arguments_is_refused(cf: CFQueue, function: Any, text: str) -> None:
    with pytest.raises(HandlerSignatureError, match=rf"'jobs'.*{text}"):
        cf.queue("jobs")(function)
    assert cf.consumers == {}
    with pytest.raises(HandlerSignatureError):
        shared_queue("jobs")(function)


def test_a_queue_has_one_handler(cf: CFQueue) -> None:
    @cf.queue("jobs")
    def first(batch: Any) -> None: ...

    with pytest.raises(QueueConsumerConflict, match=r"'jobs'.*test_app.*first.*one consumer"):

        @cf.queue("jobs")
        def second(batch: Any) -> None: ...

    assert cf.consumers["jobs"] is first
    assert cf.queue("jobs")(first.function) is first, "the same function twice is once"


def test_a_handler_is_still_its_function(cf: CFQueue) -> None:
    @cf.queue("jobs")
    def handle(batch: Any, env: Any) -> int:
        """What it does."""
        return len(batch)

    assert handle.__name__ == "handle"
    assert handle.__doc__ == "What it does."
    batch = create_message_batch("jobs", [{"id": "1", "body": "x"}])
    assert handle(batch) == 1
    assert handle(batch, env=object()) == 1
    assert get_queue_result(batch, handle).outcome == "ok"
    assert "jobs" in repr(handle)


def test_every_handler_has_a_task_whenever_it_was_made() -> None:
    app = celery()
    cf = CFQueue(app)
    cf.queue("early")(lambda batch: None)
    app.finalize()
    cf.queue("late")(lambda batch: None)
    assert {n for n in app.tasks if n.startswith("cfqueue.")} == {"cfqueue.queue.early", "cfqueue.queue.late"}
    assert not set(app.amqp.queues) & {"early", "late"}, "no queue of ours ever enters app.amqp.queues"


# Settings

BAD_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "too large": ({"max_batch_size": 101}, r"max_batch_size is 101; .* from 1 to 100"),
    "too small": ({"max_batch_size": 0}, r"max_batch_size is 0; .* from 1 to 100"),
    "a fraction": ({"max_batch_timeout": 0.5}, "max_batch_timeout is 0.5; it must be a whole number"),
    "text": ({"max_retries": "5"}, "Did you mean 5, without quotes"),
    "a boolean": ({"max_retries": True}, "max_retries is True"),
    "a timeout in milliseconds": ({"max_batch_timeout": 5000}, "seconds, not milliseconds"),
    "a delay too long": ({"retry_delay": 31_536_001}, "retry_delay"),
    "no such setting": ({"max_batchsize": 5}, r"no setting 'max_batchsize'.*max_batch_size"),
    "its own dead-letter queue": ({"dead_letter_queue": "jobs"}, "own dead-letter queue"),
    "a bad dead-letter queue": ({"dead_letter_queue": "my queue"}, "'my queue'"),
    "concurrency 0": ({"max_concurrency": 0}, "from 1 to 250"),
    "soft above hard": ({"soft_time_limit": 10, "time_limit": 5}, "below time_limit"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_a_wrong_setting_is_refused_where_it_stands(cf: CFQueue, case: str) -> None:
    settings, text = BAD_SETTINGS[case]
    with pytest.raises(ConfigurationError, match=text):

        @cf.queue("jobs", **settings)
        def handle(batch: Any) -> None: ...

    assert cf.consumers == {}, "a refused handler leaves nothing behind"


def test_a_bad_queue_name_is_refused_by_the_decorators(cf: CFQueue) -> None:
    for name in ("my queue", "a" * 64, ""):
        with pytest.raises(InvalidQueueName):
            cf.queue(name)
        with pytest.raises(InvalidQueueName):
            shared_queue(name)


def test_defaults_are_cloudflares(cf: CFQueue) -> None:
    found = cf.queue("jobs")(lambda batch: None).settings
    assert (found.max_batch_size, found.max_batch_timeout, found.max_retries, found.retry_delay) == (
        10,
        5,
        3,
        0,
    )
    assert (found.dead_letter_queue, found.max_concurrency) == ("jobs-dlq", None)
    assert cf.queue("mails", dead_letter_queue=None)(lambda batch: None).settings.dead_letter_queue is None


def test_a_keyword_wins_over_the_file_and_says_so() -> None:
    config = {"queues": {"consumers": [{"queue": "jobs", "max_batch_size": 20, "max_retries": 7}]}}
    cf = CFQueue(celery(), config=config)
    handler = cf.queue("jobs", max_batch_size=30, max_retries=7)(lambda batch: None)
    with pytest.warns(ConfigurationWarning, match=r"max_batch_size is 30.*is 20.*keyword wins"):
        settings = handler.settings
    assert (settings.max_batch_size, settings.max_retries) == (30, 7)


def test_a_wrong_value_in_the_configuration_shows_when_it_is_read() -> None:
    cf = CFQueue(celery(cfqueue_queues={"jobs": {"max_retries": 101}}))
    cf.queue("jobs")(lambda batch: None)
    with pytest.raises(ConfigurationError, match=r"'jobs'\]\['max_retries'\] is 101"):
        _ = cf.config


def test_an_unknown_key_of_ours_in_app_conf_warns() -> None:
    with pytest.warns(ConfigurationWarning, match="cfqueue_brokr_url.*cfqueue_broker_url"):
        _ = CFQueue(celery(cfqueue_brokr_url="x://")).config


def test_a_configuration_with_a_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "wrangler.toml"
    path.write_text("[[queues.consumers]\nqueue = 1\n")
    with pytest.raises(ConfigurationError, match=r"wrangler\.toml.*line 1"):
        _ = CFQueue(celery(), config=path).config


def test_known_queues_are_listed(cf: CFQueue) -> None:
    cf.queue("jobs")(lambda batch: None)
    cf.queue("mails", dead_letter_queue="graves")(lambda batch: None)
    assert list(cf.queues) == ["graves", "jobs", "jobs-dlq", "mails"]
    assert len(cf.queues) == 4
    assert "graves" in cf.queues
    assert "other" not in cf.queues
    assert cf.queues["other"].name == "other", "any valid name has a handle"


# Shared handlers


@pytest.mark.usefixtures("shared")
def test_a_shared_handler_belongs_to_applications_made_before_and_after() -> None:
    before = CFQueue(celery("before"))

    @shared_queue("shared-jobs", max_batch_size=7)
    def handle(batch: Any) -> str:
        return "ran"

    after = CFQueue(celery("after"))
    for cf in (before, after):
        assert cf.consumers["shared-jobs"].settings.max_batch_size == 7
        cf.app.set_current()
        assert handle.queue is cf.queues["shared-jobs"]
        assert handle([]) == "ran"
        assert handle.task.app is cf.app


@pytest.mark.usefixtures("shared")
def test_a_shared_handler_conflicts_like_any_other() -> None:
    cf = CFQueue(celery())

    @cf.queue("contested")
    def own(batch: Any) -> None: ...

    def other(batch: Any) -> None: ...

    with pytest.raises(QueueConsumerConflict, match="own"):
        shared_queue("contested")(other)
    CFQueue(celery("next")).queue("contested")(other)  # the refused one has left nothing behind
    shared_queue("more-jobs")(other)
    with pytest.raises(QueueConsumerConflict, match="shared handler"):
        shared_queue("more-jobs")(lambda batch: None)


# Eager mode


@pytest.fixture
def eager() -> CFQueue:
    return CFQueue(celery(task_always_eager=True))


def test_delay_runs_the_handler_in_eager_mode(eager: CFQueue) -> None:
    seen = []

    @eager.queue("jobs")
    def handle(batch: Any, env: Any) -> None:
        seen.extend((m.body, m.attempts, len(batch), batch.queue) for m in batch)

    result = handle.delay({"n": 1})
    assert result.state == "SUCCESS"
    assert result.get() is None
    assert seen == [({"n": 1}, 1, 1, "jobs")]


def test_retries_follow_at_once_in_eager_mode_and_end(eager: CFQueue) -> None:
    attempts = []

    @eager.queue("jobs", max_retries=2)
    def handle(batch: Any) -> None:
        attempts.append(batch[0].attempts)
        if batch[0].body == "raise":
            raise ValueError("no")
        if batch[0].body == "Retry":
            raise Retry
        batch[0].retry(delay_seconds=100)

    for body in ("raise", "retry", "Retry"):
        attempts.clear()
        result = handle.delay(body)
        assert attempts == [1, 2, 3]
        assert result.state == "FAILURE"
        assert "retries_exhausted" in str(result.result)
    with pytest.raises(ValueError, match="no"):
        handle.apply(["raise"], throw=True)
    eager.app.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="no"):
        handle.delay("raise")


def test_a_body_in_eager_mode_is_what_a_worker_would_see(eager: CFQueue) -> None:
    seen = []
    handle = eager.queue("jobs")(lambda batch: seen.append(batch[0].body))
    handle.delay({"t": (1, 2)})
    assert seen == [{"t": [1, 2]}]
    with pytest.raises(cfqueue.InvalidMessage):
        handle.delay({1, 2})


def test_apply_runs_here_whatever_the_mode(cf: CFQueue) -> None:
    handle = cf.queue("jobs")(lambda batch: batch.ack_all())
    assert handle.apply([1]).state == "SUCCESS"
    assert handle.task.s(1).apply().state == "SUCCESS"


def test_calling_the_task_runs_the_handler(cf: CFQueue) -> None:
    seen = []
    handle = cf.queue("jobs", max_retries=0)(lambda batch: seen.append(batch[0].body))
    handle.task("x")
    assert seen == ["x"]


# What importing costs


def test_a_handler_loads_neither_sqlalchemy_nor_flask_nor_sqlite() -> None:
    loaded = python(
        """
        import sys
        from celery import Celery
        from cfqueue import CFQueue
        app = Celery("shop", broker="amqp://")
        cf = CFQueue(app)
        @cf.queue("jobs", max_batch_size=10, max_batch_timeout=5, max_retries=3, retry_delay=10)
        def handle(batch, env): ...
        unwanted = {"sqlalchemy", "flask", "sqlite3", "alembic", "redis"}
        print(*sorted(m for m in sys.modules if m.partition(".")[0] in unwanted))
        """
    )
    assert loaded == ""


def test_a_handler_adds_at_most_40_ms_to_what_celery_costs() -> None:
    """Processor time, so that other programs on the machine do not count; medians of interleaved runs."""
    celery_alone = """
        import time
        from celery import Celery
        app = Celery("shop", broker="amqp://")
        @app.task
        def add(a, b): ...
        app.finalize()
        """
    with_cfqueue = """
        import time
        from celery import Celery
        from cfqueue import CFQueue
        app = Celery("shop", broker="amqp://")
        cf = CFQueue(app)
        @cf.queue("jobs")
        def add(batch): ...
        """
    tail = "\n        print(time.process_time())"
    runs: dict[str, list[float]] = {celery_alone: [], with_cfqueue: []}
    for code in runs:
        python(code + tail)
    for _ in range(7):
        for code, times in runs.items():
            times.append(float(python(code + tail)))
    added = statistics.median(runs[with_cfqueue]) - statistics.median(runs[celery_alone])
    assert added <= 0.040, runs
