"""A `celery worker` of our own in a process of its own: started, watched, and always stopped."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cfqueue.cli.tie import TIED

#: Seconds a worker has for its warm shutdown (running batches end) before the cold one.
WARM_SECONDS = 10.0
#: Seconds it then has for its cold shutdown before it is killed.
COLD_SECONDS = 5.0


class WorkerProcess:
    """One worker, in a process group of its own: the terminal's Ctrl-C reaches it through us only."""

    def __init__(
        self,
        application: str,
        options: Sequence[str] = (),
        *,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        """``log`` None lets the worker write where we do. The application must import ``cfqueue.cli.tie``."""
        self.log = log
        command = [sys.executable, "-m", "celery", "-A", application, "worker", *options]
        output = log.open("ab") if log else None
        self._ready = False
        reading, news = os.pipe()
        self._news = open(reading, "rb", buffering=0)  # noqa: PTH123, SIM115 - a descriptor, closed in _kill
        try:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, TIED: str(news), **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                pass_fds=[news],
                start_new_session=True,
            )
        finally:
            os.close(news)
            if output:
                output.close()

    @property
    def pid(self) -> int:
        """The process id of the worker's main process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.poll()

    @property
    def ready(self) -> bool:
        """Whether it has begun to consume."""
        if not self._ready and not self._news.closed and select.select([self._news], [], [], 0)[0]:
            self._ready = bool(self._news.read(1))
        return self._ready

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within ``seconds``."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def ask_to_stop(self, *, cold: bool = False) -> None:
        """Warm: running batches end first. Cold: they are given back."""
        if self.status is None:
            self._process.send_signal(signal.SIGQUIT if cold else signal.SIGTERM)

    def stop(self, *, warm_seconds: float = WARM_SECONDS) -> None:
        """Stop it for certain: warm, then cold, then by force. Safe to call again."""
        try:
            self.ask_to_stop()
            if not self.wait(warm_seconds):
                self.ask_to_stop(cold=True)
                self.wait(COLD_SECONDS)
        finally:
            self._kill()

    def _kill(self) -> None:
        if self.status is None:
            # The group is the session that this worker leads: its pool children, nobody else.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._news.close()
        if self._process.stdin:
            self._process.stdin.close()

    def last_lines(self, count: int = 5) -> list[str]:
        """Return the end of its log, for an error message."""
        if self.log is None or not self.log.exists():
            return []
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if line.strip()][-count:]
