"""``cfqueue demo``: audit the installed packages through a real queue, and account for every message."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from cfqueue.cli.demo_account import Account, Expectation, Sending
from cfqueue.cli.demo_files import DamagedCopy, ListedFile, damaged_copy, installed, within
from cfqueue.cli.demo_progress import Display
from cfqueue.cli.demo_report import calls_in_words, introduce, show, tell_what_next
from cfqueue.cli.demo_results import Results
from cfqueue.cli.output import Failure, Output, reporting
from cfqueue.cli.places import fresh_folder, in_use, remove_older
from cfqueue.cli.worker import WorkerProcess

#: Messages in one ``send_batch`` and in one full batch: the most that Cloudflare allows.
SEND_BATCH = 100
#: Seconds without any news after which the demo gives up.
STALLED_SECONDS = 30.0
POLL_SECONDS = 0.1
WORKER_OPTIONS = (
    "--pool=prefork",
    "--concurrency=2",
    "--loglevel=INFO",
    "--without-gossip",
    "--without-mingle",
)


@click.command()
@click.option("--exit", "ends", is_flag=True, help="End when done. Without it the worker stays.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8787,
    show_default=True,
    help="Port of the web app. It is not there yet; the option is accepted and not used.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=5000,
    show_default=True,
    help="Most files to check; 0 checks all.",
)
@reporting
def demo(output: Output, ends: bool, port: int, limit: int) -> None:
    """Audit the installed Python packages through a queue.

    One message for each installed file, hashed in batches by a real Celery worker on one SQLite
    file; a damaged copy of a package shows retries and dead letters. Nothing leaves this machine.
    """
    del port
    began = time.monotonic()
    with _ending_on_signals():
        try:
            _run(output, began=began, ends=ends, limit=limit)
        except KeyboardInterrupt as interrupt:
            output.line("Interrupted; the worker was stopped.")
            raise click.exceptions.Exit(_status(interrupt)) from None


def _run(output: Output, *, began: float, ends: bool, limit: int) -> None:
    folder = fresh_folder("demo")
    with in_use(folder):
        remove_older(folder)
        _run_in(folder, output, began=began, ends=ends, limit=limit)


def _run_in(folder: Path, output: Output, *, began: float, ends: bool, limit: int) -> None:
    # The demo is the same whatever this shell is set up for.
    for name in [name for name in os.environ if name.startswith("CFQUEUE_")]:
        del os.environ[name]
    os.environ["CFQUEUE_DEMO_FOLDER"] = str(folder)
    # The demo's program reads its folder from the environment, like the worker that runs it.
    from cfqueue.cli import demo_app

    results = demo_app.results
    results.create()
    everything = installed()
    chosen = within(everything, limit)
    try:
        damaged = damaged_copy(everything, folder / "damaged")
    except LookupError as error:
        raise Failure(str(error.args[0])) from None
    # The damaged copy goes first, so that its retries happen while the rest is checked.
    files = [*damaged.files, *(file for each in chosen for file in each.files)]
    introduce(output, damaged, files, len(chosen), len(everything), folder)
    worker = WorkerProcess(
        "cfqueue.cli.demo_app",
        WORKER_OPTIONS,
        log=folder / "worker.log",
    )
    try:
        with Display(output, len(files)) as display:
            sending = _send(output, demo_app.audit, files, display, len(chosen), len(everything))
            _watch(results, worker, damaged, files, display)
        account = _account(demo_app.cf, results, sending, damaged, files, began, folder)
        show(output, account)
        if account.problems():
            raise click.exceptions.Exit(1)
        if not ends:
            _stay(output, worker, folder)
    finally:
        worker.stop()


def _send(
    output: Output, queue: Any, files: Sequence[ListedFile], display: Display, packages: int, of: int
) -> Sending:
    """Send one message for each file, numbered from 1, a hundred at a time."""
    began = time.monotonic()
    calls = 0
    for start in range(0, len(files), SEND_BATCH):
        part = files[start : start + SEND_BATCH]
        queue.send_batch([{"body": _body(number, file)} for number, file in enumerate(part, start + 1)])
        calls += 1
        display.sent(start + len(part))
    sending = Sending(len(files), calls, time.monotonic() - began, packages, of)
    if not output.live:
        output.line(f"sent {len(files):,} messages in {calls_in_words(calls)}, {sending.seconds:.2f} s")
    return sending


def _body(number: int, file: ListedFile) -> dict[str, Any]:
    return {
        "number": number,
        "distribution": file.distribution,
        "path": file.path,
        "file": file.location,
        "sha256": file.sha256,
    }


def _watch(
    results: Results,
    worker: WorkerProcess,
    damaged: DamagedCopy,
    files: Sequence[ListedFile],
    display: Display,
) -> None:
    """Wait until every message is settled; let the late file appear after its first failed delivery."""
    late = files.index(damaged.late) + 1
    appeared = False
    news, news_at = None, time.monotonic()
    while True:
        figures = results.figures()
        display.settled(figures, last=figures.settled >= len(files))
        if not appeared and results.deliveries_of(late):
            damaged.deliver_late_file()
            appeared = True
        if figures.settled >= len(files):
            return
        if worker.status is not None:
            raise Failure(f"The worker ended with status {worker.status}. {_end_of_log(worker)}")
        if news != figures:
            news, news_at = figures, time.monotonic()
        elif time.monotonic() - news_at > STALLED_SECONDS:
            state = f"{figures.settled:,} of {len(files):,} messages are settled"
            raise Failure(f"Nothing happened for {STALLED_SECONDS:.0f} s; {state}. {_end_of_log(worker)}")
        time.sleep(POLL_SECONDS)


def _end_of_log(worker: WorkerProcess) -> str:
    lines = worker.last_lines(1)
    return f"Its log {worker.log} ends: {lines[0].strip()}" if lines else f"Its log: {worker.log}"


def _account(
    cf: Any,
    results: Results,
    sending: Sending,
    damaged: DamagedCopy,
    files: Sequence[ListedFile],
    began: float,
    folder: Path,
) -> Account:
    ended = time.monotonic()
    letters = results.dead_letters()
    return Account(
        sending=sending,
        figures=results.figures(),
        intact=frozenset(results.numbers_found_intact()),
        dead_letters=letters,
        findings={
            letter.number: [each.finding for each in results.deliveries_of(letter.number)]
            for letter in letters
        },
        recovered=results.succeeded_on_retry(),
        expectation=Expectation(
            *(files.index(file) + 1 for file in (damaged.changed, damaged.removed, damaged.late))
        ),
        waiting=_waiting([cf.queues[name] for name in ("audit", "audit-dlq")]),
        speed=results.speed(SEND_BATCH),
        seconds=ended - began,
        folder=folder,
    )


def _waiting(queues: Sequence[Any]) -> int | None:
    """Return what is left in the queues; the last batch's acks may still be on their way for a moment."""
    deadline = time.monotonic() + 5
    while True:
        counts = [
            count
            for metrics in (queue.metrics() for queue in queues)
            for count in (metrics.backlog_count, metrics.delayed_count, metrics.in_flight_count)
        ]
        waiting = None if None in counts else sum(counts)
        if not waiting or time.monotonic() > deadline:
            return waiting
        time.sleep(POLL_SECONDS)


def _stay(output: Output, worker: WorkerProcess, folder: Path) -> None:
    tell_what_next(output, folder)
    try:
        while not worker.wait(1):
            pass
    except KeyboardInterrupt as interrupt:
        worker.stop()
        output.line(f"The worker was stopped. Everything stays in {folder}")
        raise click.exceptions.Exit(_status(interrupt)) from None
    raise Failure(f"The worker ended with status {worker.status}. {_end_of_log(worker)}")


class _Signalled(KeyboardInterrupt):
    """Another signal than Ctrl-C's asks the demo to end."""


def _status(interrupt: KeyboardInterrupt) -> int:
    """The exit status as shells know it: 128 and the signal's number."""
    return 128 + (int(interrupt.args[0]) if isinstance(interrupt, _Signalled) else signal.SIGINT)


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does, so that its worker is stopped with it."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise _Signalled(number)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
