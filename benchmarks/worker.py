"""A real ``celery worker`` of one of our projects, watched from outside."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import psutil

from benchmarks import message
from benchmarks.running import ROOT, environment

_START_SECONDS = 30.0
_STOP_SECONDS = 30.0


class Worker:
    """``with Worker(folder, "queues", "prefork", ["noop"]) as worker: …``; stopped warm at the end."""

    def __init__(
        self, folder: Path, project: str, pool: str, queues: list[str] | None = None, *, acks: str = "late"
    ) -> None:
        self.folder = folder
        self._acks = acks
        self._command = [
            *(sys.executable, "-m", "celery", "-A", f"benchmarks.projects.{project}", "worker"),
            *("--pool", pool, "-c", "2", "--loglevel", "warning"),
            *(("-Q", ",".join(queues)) if queues else ()),
        ]

    def __enter__(self) -> Worker:
        given = {
            "BENCHMARK_FOLDER": str(self.folder),
            "BENCHMARK_BROKER": message.url(self.folder),
            "BENCHMARK_ACKS": self._acks,
        }
        with (self.folder / "worker.log").open("ab") as log:
            self._popen = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env={**environment(), "C_FORCE_ROOT": "1", **given},
                stdout=log,
                stderr=log,
            )
        self.process = psutil.Process(self._popen.pid)
        self.wait_for((self.folder / "ready").exists, _START_SECONDS, "the worker to start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """A warm shutdown: what runs is finished and settled."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
                raise TimeoutError(f"the worker did not stop in {_STOP_SECONDS:g} s: {self.log()}") from None

    def wait_for(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self._popen.poll() is not None:
                raise RuntimeError(f"the worker ended while waiting for {what}: {self.log()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:g} s for {what}: {self.log()}")
            time.sleep(0.02)

    def log(self) -> str:
        """The end of what it wrote."""
        return (self.folder / "worker.log").read_text(encoding="utf-8", errors="replace")[-2000:]

    def tree(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def cpu_seconds(self) -> tuple[float, float]:
        """User and system time so far: of the main process, and of the main process and all its children."""
        times = []
        for process in self.tree():
            try:
                spent = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            times.append(spent.user + spent.system)
        return times[0], sum(times)

    def memory(self) -> int:
        """Resident bytes of the main process and its children."""
        return sum(process.memory_info().rss for process in self.tree())
