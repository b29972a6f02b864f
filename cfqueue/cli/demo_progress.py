"""The demo's progress: a bar in a terminal, a line a second elsewhere, nothing with ``--json``."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cfqueue.cli.demo_results import Figures
from cfqueue.cli.output import Output

#: Seconds between two lines where no bar can be drawn.
LINE_SECONDS = 1.0


class Display:
    """Shows how far it is. The caller passes figures it has read; none is guessed."""

    def __init__(self, output: Output, total: int) -> None:
        self._output = output
        self._total = total
        self._shown = ""
        self._shown_at = float("-inf")
        self._bar: Progress | None = None
        if output.live:
            self._bar = Progress(
                TextColumn("{task.description:<8}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                console=output.console,
            )
            self._sent = self._bar.add_task("sent", total=total, note="")
            self._settled = self._bar.add_task("settled", total=total, note="worker is starting")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def sent(self, count: int) -> None:
        """``count`` messages have been confirmed by the broker."""
        if self._bar:
            self._bar.update(self._sent, completed=count)

    def settled(self, figures: Figures, *, last: bool = False) -> None:
        """Show how many messages have an outcome that stays."""
        count = figures.settled
        note = f"{figures.retries} retries, {figures.dead_letters} dead-lettered"
        if not figures.deliveries:
            note = "worker is starting"
        if self._bar:
            self._bar.update(self._settled, completed=count, note=note)
            return
        line = f"settled {count:,} of {self._total:,}: {note}"
        now = time.monotonic()
        if line != self._shown and (last or now - self._shown_at >= LINE_SECONDS):
            self._shown, self._shown_at = line, now
            self._output.line(line)
