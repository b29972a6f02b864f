"""A host project behaves the same with and without cfqueue added: one program, run twice, compared."""

from __future__ import annotations

import json
import os
import signal
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

from .harness import Project, eventually

HEAD = """
import json, os, sys
from datetime import timedelta
from celery import Celery, signals
from celery.schedules import crontab
from kombu import Exchange, Queue
import cfqueue.transport; cfqueue.transport.register()  # in both, so that both can use the embedded file
from worker.scene import record, run, wait_for_gate

NAME = os.environ["HOST_NAME"]
app = Celery("host", broker=os.environ["HOST_BROKER"])
app.conf.update(
    result_backend="file://" + os.environ["SCENE_FOLDER"] + "/results",
    broker_connection_retry_on_startup=True,
    broker_transport_options=json.loads(os.environ["HOST_OPTIONS"]),
    control_exchange=NAME + "-control",
    task_default_queue=NAME + "-default",
    task_queues=[
        Queue(NAME + "-default", Exchange(NAME), routing_key="default"),
        Queue(NAME + "-slow", Exchange(NAME), routing_key="slow"),
        Queue(NAME + "-unused", Exchange(NAME), routing_key="unused"),
    ],
    task_default_exchange=NAME,
    task_default_routing_key="default",
    task_routes={"host.slow": {"queue": NAME + "-slow", "routing_key": "slow"}},
    worker_prefetch_multiplier=3,
    task_acks_late=True,
    task_track_started=True,
    beat_schedule={
        "often": {"task": "host.add", "schedule": timedelta(seconds=30), "args": (1, 2)},
        "nightly": {"task": "host.slow", "schedule": crontab(hour=3, minute=7)},
    },
    worker_redirect_stdouts_level="INFO",
    timezone="Europe/Berlin",
)

@app.task(name="host.add")
def add(a, b):
    record("add", result=a + b)
    return a + b

@app.task(name="host.slow", bind=True, max_retries=2, default_retry_delay=0)
def slow(self, n):
    record("slow", n=n, retries=self.request.retries, info=self.request.delivery_info)
    if self.request.retries < 1:
        raise self.retry(countdown=0)
    return [n, self.request.retries]

@app.task(name="host.fail")
def fail():
    raise ValueError("as usual")

@signals.worker_ready.connect
def ready(sender, **_):
    queues = app.amqp.queues
    record(
        "ready",
        prefetch=sender.qos.value,
        initial=sender.initial_prefetch_count,
        consume_from=sorted(queues.consume_from),
        queues=sorted(queues),
        loop=sender.hub is not None,
        pool=type(sender.pool).__name__,
        acks=app.conf.task_acks_late,
        channels=len(sender.connection.transport.channels) if hasattr(sender.connection.transport, "channels") else 0,
    )

@signals.worker_shutdown.connect
def down(sender, **_):
    record("down")

if os.environ.get("WITH_CFQUEUE"):
    from cfqueue import CFQueue
    app.conf.cfqueue_broker_url = "cfqueue+sqlite:///" + os.environ["SCENE_FOLDER"] + "/ours.db"
    cf = CFQueue(app)

    @cf.queue("jobs", max_batch_timeout=0)
    def jobs(batch):
        run(batch)
"""

DUMP = """
import json, logging, os
from celery import signals
from celery.utils.dispatch import Signal
import project
app = project.app
app.finalize()

def where(receiver):
    target = receiver() if type(receiver).__name__ in ("ref", "ReferenceType", "WeakMethod") else receiver
    return f"{getattr(target, '__module__', '?')}.{getattr(target, '__qualname__', target)}"

conf = {k: repr(app.conf[k]) for k in sorted(app.conf) if not k.lower().startswith("cfqueue")}
print(json.dumps({
    "conf": conf,
    "queues": {n: repr(q.as_dict(recurse=True)) for n, q in app.amqp.queues.items()},
    "beat": {n: repr(e) for n, e in app.conf.beat_schedule.items()},
    "tasks": sorted(n for n in app.tasks if not n.startswith("cfqueue.")),
    "routes": {n: repr(sorted((k, repr(v)) for k, v in app.amqp.router.route({}, n).items()))
               for n in ("host.add", "host.slow", "other", "cfqueue.queue.elsewhere")},
    "options": {n: [repr(getattr(app.tasks[n], o))
                    for o in ("acks_late", "ignore_result", "max_retries", "rate_limit", "serializer")]
                for n in ("host.add", "host.slow", "host.fail")},
    "signals": {n: sorted(where(r[1]) for r in s.receivers or [])
                for n, s in vars(signals).items() if isinstance(s, Signal)},
    "loggers": {n: [logging.getLogger(n).level, len(logging.getLogger(n).handlers)]
                for n in ("", "celery", "kombu", "host")},
    "sys.excepthook": repr(__import__("sys").excepthook),
}))
"""


def amqp_is_there() -> bool:
    try:
        socket.create_connection(("127.0.0.1", 5672), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(params=["sqlite", "filesystem", "amqp"])
def host(request: pytest.FixtureRequest, make_project: Any, tmp_path: Path) -> Iterator[dict[bool, Project]]:
    """The project without and with cfqueue, each with a broker namespace of its own."""
    if request.param == "amqp" and not amqp_is_there() and not os.environ.get("CFQUEUE_REQUIRE_SERVICES"):
        pytest.skip("no RabbitMQ answers on 127.0.0.1:5672")
    found = {}
    names = []
    for ours in (False, True):
        # Names of one length: what is compared has the name replaced by it.
        name = f"host{uuid.uuid4().hex[:8]}"
        names.append(name)
        folder = tmp_path / name
        options: dict[str, Any] = {}
        if request.param == "filesystem":
            for kind in ("in", "processed", "control"):
                (folder / kind).mkdir(parents=True)
            options = {
                "data_folder_in": str(folder / "in"),
                "data_folder_out": str(folder / "in"),
                "processed_folder": str(folder / "processed"),
                "control_folder": str(folder / "control"),
                "store_processed": False,
            }
        broker = {
            "sqlite": f"cfqueue+sqlite:///{tmp_path}/{name}.db",
            "filesystem": "filesystem://",
            "amqp": "amqp://guest:guest@127.0.0.1:5672//",
        }[request.param]
        environment = {"HOST_NAME": name, "HOST_BROKER": broker, "HOST_OPTIONS": json.dumps(options)}
        if ours:
            environment["WITH_CFQUEUE"] = "1"
        found[ours] = make_project("", head=HEAD, environment=environment)
        (found[ours].folder / "results").mkdir()
    yield found
    if request.param == "amqp":
        with Connection("amqp://guest:guest@127.0.0.1:5672//") as connection, connection.channel() as channel:
            for name in names:
                for suffix in ("-default", "-slow", "-unused"):
                    channel.queue_delete(name + suffix)
                for exchange in (name, f"{name}-control.pidbox", f"reply.{name}-control.pidbox"):
                    channel.exchange_delete(exchange)


def neutral(project: Project, text: str) -> str:
    """The text without what differs between any two runs: names and folders."""
    return text.replace(project.more["HOST_NAME"], "HOST").replace(str(project.folder), "FOLDER")


def test_adding_cfqueue_changes_nothing_in_the_application(host: dict[bool, Project]) -> None:
    plain, ours = (json.loads(neutral(p, p.python(DUMP))) for p in (host[False], host[True]))
    added = {
        name: sorted(set(ours["signals"][name]) - set(plain["signals"][name]))
        for name in plain["signals"]
        if ours["signals"][name] != plain["signals"][name]
    }
    # The one receiver of ours: it splits -Q for workers of applications that have a CFQueue.
    assert added == {"celeryd_init": ["cfqueue.app._on_worker_init"]}
    for part in plain.keys() - {"signals"}:
        assert ours[part] == plain[part], part


def in_order(project: Project, values: list[Any]) -> list[Any]:
    """The filesystem transport itself keeps no order."""
    return sorted(values, key=repr) if project.more["HOST_BROKER"].startswith("filesystem") else values


def work(project: Project) -> dict[str, Any]:
    """Run a worker, give it tasks, and say what could be seen."""
    out = project.python(
        """
        import json
        import project
        for n in range(20):
            last = project.add.delay(n, n)
        slow = [project.slow.delay(n) for n in range(3)]
        fail = project.fail.delay()
        print(json.dumps([last.id, [r.id for r in slow], fail.id]))
        """
    )
    last, slow, fail = json.loads(out)
    with project.worker(concurrency=1) as worker:
        eventually(lambda: len(project.records("add")) == 20 and len(project.records("slow")) == 6)
        results = project.python(
            f"""
            import json, time
            import project
            values = [project.app.AsyncResult(i).get(timeout=20) for i in {[last, *slow]}]
            failed = project.app.AsyncResult({fail!r})
            failed.get(timeout=20, propagate=False)
            print(json.dumps([values, failed.state, repr(failed.result)]))
            """
        )
        worker.signal(signal.SIGTERM)
        status = worker.wait()
    log = worker.log()
    [ready] = project.records("ready")
    return {
        "ready": {k: v for k, v in ready.items() if k not in ("pid", "at")},
        "order": in_order(project, [r["result"] for r in project.records("add")]),
        "slow": in_order(project, [(r["n"], r["retries"], r["info"]) for r in project.records("slow")]),
        "results": json.loads(results),
        "status": status,
        "down": len(project.records("down")),
        "received": log.count(" received"),
        "succeeded": log.count(" succeeded in "),
        "retried": log.count(" retry: "),
    }


@pytest.mark.worker
def test_a_worker_treats_the_hosts_tasks_the_same(host: dict[bool, Project]) -> None:
    seen = {}
    for ours, project in host.items():
        if ours:
            out = project.python(
                "import project; print(*project.jobs.send_batch([{'body': n} for n in range(50)]).ids)"
            )
        seen[ours] = json.loads(neutral(project, json.dumps(work(project))))
    assert len(out.split()) == 50
    assert all(host[True].attempts(i) == [1] for i in out.split()), "and the queue was served beside it"
    for part in seen[False]:
        assert seen[True][part] == seen[False][part], part
