"""``cfqueue dev``: a worker that restarts when the source changes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType

import click

from cfqueue.cli.application import app_option, chosen
from cfqueue.cli.output import Output, reporting
from cfqueue.cli.watch import Watch
from cfqueue.cli.worker import WorkerProcess

POLL_SECONDS = 0.5
#: The same while a worker starts, so that it is said when it is ready.
START_POLL_SECONDS = 0.05
#: How Celery, and our own module for it, end when the command line is wrong.
USAGE_STATUS = 2
#: Seconds a running batch has to end before a restart gives it back.
RESTART_PATIENCE = 5.0


@click.command()
@app_option
@click.option("--loglevel", default="INFO", show_default=True, help="The worker's log level.")
@click.argument("worker_options", nargs=-1, type=click.UNPROCESSED)
@reporting
def dev(output: Output, spec: str | None, loglevel: str, worker_options: tuple[str, ...]) -> None:
    """Run a worker and restart it when a source file changes.

    The application is --app, CFQUEUE_APP, or app.py in this folder. Options for the worker can
    follow after --, as in: cfqueue dev -- --pool=solo
    """
    named = chosen(spec)
    Session(output, named, (f"--loglevel={loglevel}", *worker_options)).run()


class Session:
    """One run of ``cfqueue dev``: the worker, the watch, and what the user asked for by signals."""

    def __init__(self, output: Output, spec: str, options: tuple[str, ...]) -> None:
        self._output = output
        self._spec = spec
        self._options = options
        self._stops: list[int] = []
        #: What is said once the worker is ready, and since when that is awaited.
        self._restarting: tuple[str, float] | None = None
        self._worker = self._start()

    def _start(self) -> WorkerProcess:
        # No log: the worker writes to our terminal.
        return WorkerProcess(
            "cfqueue.cli.dev_app",
            self._options,
            environment={"CFQUEUE_APP": self._spec, "PYTHONUNBUFFERED": "1"},
        )

    def run(self) -> None:
        """Until Ctrl-C. The first one ends running batches, a second one gives them back.

        Ends with 128 and the signal's number, and with 2 when the command line cannot work.
        """
        watch = Watch(Path.cwd())
        self._say(
            "start", f"worker {self._worker.pid} runs {self._spec}, restarted when a source file changes"
        )
        module = self._spec.partition(":")[0]
        self._say("hint", f"to send from another terminal, run a program that imports {module}")
        with _signals(self._asked_to_stop):
            try:
                self._watch(watch)
            finally:
                self._worker.stop(warm_seconds=RESTART_PATIENCE)
        self._say("stop", "stopped")
        raise click.exceptions.Exit(128 + self._stops[0])

    def _watch(self, watch: Watch) -> None:
        told, first = False, True
        while True:
            ended = self._worker.wait(START_POLL_SECONDS if self._restarting else POLL_SECONDS)
            if self._stops:
                if ended:
                    return
                continue
            self._say_when_ready()
            if ended and not told:
                self._say_ended(first=first)
                told = True
            elif ended:
                time.sleep(POLL_SECONDS)
            changed = watch.changed()
            if changed:
                self._restart(changed)
                told = first = False

    def _restart(self, changed: list[str]) -> None:
        began = time.monotonic()
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        what = f"{changed[0]}{more} changed"
        self._say("change", f"{what}: restarting the worker")
        self._worker.stop(warm_seconds=RESTART_PATIENCE)
        if self._stops:
            return
        self._worker = self._start()
        self._restarting = (what, began)

    def _say_when_ready(self) -> None:
        if self._restarting and self._worker.ready:
            what, began = self._restarting
            self._restarting = None
            self._say("restart", f"{what}: worker restarted in {time.monotonic() - began:.1f} s")

    def _say_ended(self, *, first: bool) -> None:
        self._restarting = None
        status = self._worker.status
        if first and status == USAGE_STATUS:
            self._say("ended", "the worker does not take this command line; correct it and start again")
            raise click.exceptions.Exit(USAGE_STATUS)
        self._say("ended", f"the worker ended with status {status}; waiting for a change")

    def _asked_to_stop(self, number: int, _frame: FrameType | None) -> None:
        self._stops.append(number)
        self._worker.ask_to_stop(cold=len(self._stops) > 1)

    def _say(self, event: str, text: str) -> None:
        now = datetime.now().astimezone()
        self._output.line(f"{now:%H:%M:%S} {text}", style="bold cyan")
        self._output.event(event=event, at=now.isoformat(timespec="seconds"), text=text)


@contextmanager
def _signals(handler: signal._HANDLER) -> Iterator[None]:
    before = {
        number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
