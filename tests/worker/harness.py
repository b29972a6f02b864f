"""Projects in a folder of their own, workers as processes of their own, and waiting for conditions."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from celery import Celery

import cfqueue
from cfqueue import CFQueue
from cfqueue.transport.store import Store

#: Seconds within which a condition must come true on a machine that is busy with other things.
PATIENCE = 30.0
POLL = 0.01
TESTS = Path(__file__).parents[1]
_PACKAGES = (Path(cfqueue.__file__).parents[1], TESTS)

POOLS = ("prefork", "threads", "solo")
#: Broker families under test, and the URL of a fresh one in a folder. The conformance suite runs on each.
BROKERS: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"cfqueue+sqlite:///{folder / 'q.db'}",
}

#: Workers whose logs are shown when a test fails.
running: list[Worker] = []


def do(*words: Any, **more: Any) -> dict[str, Any]:
    """A body that tells a handler of ``scene`` what to do."""
    return {"do": [[word] if isinstance(word, str) else list(word) for word in words], **more}


def eventually(condition: Callable[[], Any], timeout: float = PATIENCE, what: str = "") -> Any:
    """Return what ``condition()`` returns as soon as that is true; AssertionError after ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        time.sleep(POLL)
    return found


HEAD = """
from __future__ import annotations
import os
from celery import Celery
from cfqueue import CFQueue, shared_queue
from worker.scene import record, run, wait_for_gate

os.environ["SCENE_PID"] = str(os.getpid())  # for children that are asked to kill their worker
app = Celery("project", broker=os.environ["SCENE_BROKER"])
app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=True)
"""


class Project:
    """A module ``project`` with an app and handlers, its broker file, its records and its workers."""

    def __init__(
        self,
        folder: Path,
        source: str,
        *,
        head: str = HEAD,
        environment: dict[str, str] | None = None,
        broker: str = "sqlite",
    ) -> None:
        self.folder = folder
        (folder / "gates").mkdir(parents=True)
        (folder / "project.py").write_text(head + textwrap.dedent(source))
        self.database = folder / "q.db"
        self.url = BROKERS[broker](folder)
        self.more = environment or {}
        self.workers: list[Worker] = []
        self._cf: CFQueue | None = None
        self._module: Any = None

    # Producing

    @property
    def cf(self) -> CFQueue:
        """A producer in this process, with no handler."""
        if self._cf is None:
            app = Celery("producer", broker=self.url, set_as_current=False)
            self._cf = CFQueue(app)
        return self._cf

    def queue(self, name: str) -> cfqueue.Queue:
        return self.cf.queues[name]

    def send(self, queue: str, *bodies: Any, **options: Any) -> list[str]:
        """Send the bodies as one batch; their ids."""
        return self.queue(queue).send_batch([{"body": body, **options} for body in bodies]).ids

    @property
    def module(self) -> Any:
        """The project itself, imported into this process."""
        if self._module is None:
            name = f"project_{uuid.uuid4().hex}"
            spec = importlib.util.spec_from_file_location(name, self.folder / "project.py")
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            with environment(self.variables()):
                spec.loader.exec_module(module)
                module.app.set_current()
            self._module = module
        return self._module

    def variables(self) -> dict[str, str]:
        path = [*map(str, _PACKAGES), str(self.folder), os.environ.get("PYTHONPATH", "")]
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("CFQUEUE_")},
            "PYTHONPATH": os.pathsep.join(part for part in path if part),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "default",
            "SCENE_FOLDER": str(self.folder),
            "SCENE_BROKER": self.url,
            **self.more,
        }

    def python(self, code: str, timeout: float = PATIENCE) -> str:
        """Run code beside the project in a process of its own; what it printed."""
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=self.variables(), cwd=self.folder, timeout=timeout, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    # Observing

    def records(self, event: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """Records in the order in which they were written, those with all of these fields."""
        path = self.folder / "records.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines]
        wanted = {**fields, **({} if event is None else {"event": event})}
        return [r for r in found if all(r.get(k) == v for k, v in wanted.items())]

    def runs(self, message_id: str, event: str = "start") -> list[dict[str, Any]]:
        """The runs of one message, each with what the handler saw of it."""
        found = []
        for run in self.records(event):
            found.extend({"run": run, **m} for m in run.get("messages", ()) if m["id"] == message_id)
        return found

    def attempts(self, message_id: str) -> list[int]:
        return [run["attempts"] for run in self.runs(message_id)]

    def empty(self, *queues: str) -> bool:
        """Nothing waits, is delayed or is held."""
        counts = [self.queue(queue).metrics() for queue in queues]
        return not any((c.backlog_count, c.delayed_count, c.in_flight_count) != (0, 0, 0) for c in counts)

    def drained(self, *queues: str, timeout: float = PATIENCE) -> None:
        eventually(lambda: self.empty(*queues), timeout, f"empty {queues}")

    def open_gate(self, name: str) -> None:
        (self.folder / "gates" / name).touch()

    # Running

    def worker(self, pool: str = "prefork", concurrency: int = 2, **options: Any) -> Worker:
        worker = Worker(self, pool, concurrency, **options)
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for worker in self.workers:
            worker.end()
        if self.database.exists():
            Store.at(str(self.database)).close()
        if self._module is not None:
            self._module.app.close()


class Worker:
    """A `celery worker` process in a group of its own. As a context: ready inside, ended after."""

    def __init__(
        self,
        project: Project,
        pool: str,
        concurrency: int,
        *,
        name: str | None = None,
        queues: str | None = None,
        exclude: str | None = None,
        arguments: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        module: str = "project",
        expect: str = " ready.",
    ) -> None:
        self.project = project
        self.name = name or f"w{len(project.workers)}"
        self.log_path = project.folder / f"{self.name}.log"
        self._expect = expect
        command = [sys.executable, "-m", "celery", "-A", module, "worker"]
        command += [
            "--pool",
            pool,
            "-c",
            str(1 if pool == "solo" else concurrency),
            "-n",
            f"{self.name}@test",
        ]
        command += ["--loglevel", "INFO", "--without-gossip", "--without-mingle"]
        command += ["-Q", queues] if queues is not None else []
        command += ["-X", exclude] if exclude is not None else []
        self.command = [*command, *arguments]
        self.environment = {**project.variables(), "SCENE_WORKER": self.name, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Worker:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, cwd=self.project.folder, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        running.append(self)
        return self

    def ready(self) -> Worker:
        eventually(self._is_up, what=f"{self.name} ready; its log:\n{self.log()}")
        return self

    def _is_up(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.log()}")
        return self._expect in self.log()

    def __enter__(self) -> Worker:
        self.start()
        try:
            return self.ready()
        except BaseException:
            self.end()
            raise

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None:
            print(f"--- log of {self.name}\n{self.log()}")
        self.end()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def children(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.pid).children()]

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def stop(self, timeout: float = PATIENCE) -> int:
        """SIGTERM, as a deploy does; the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float = PATIENCE) -> int:
        assert self.process is not None
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {timeout:g} s:\n{self.log()}") from None

    def kill(self) -> None:
        """SIGKILL for the worker and its children, as when a machine's memory runs out."""
        self.signal_group(signal.SIGKILL)
        self.wait()

    def end(self) -> None:
        if self.process is not None:
            self.signal_group(signal.SIGCONT)
            self.signal_group(signal.SIGKILL)
            self.process.wait()
            if self in running:
                running.remove(self)


@contextlib.contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """These variables for as long as the block runs."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
