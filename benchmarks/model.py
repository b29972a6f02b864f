"""What a case is: sides that are run, figures that they give, and goals about those figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Sample:
    """What one run of one side gave. A run that handled more or less than it sent has no figures."""

    sent: int
    handled: int
    figures: Mapping[str, float] = field(default_factory=dict)
    #: Why the run does not count, where it is not the numbers.
    trouble: str = ""

    @property
    def complete(self) -> bool:
        return not self.trouble and self.sent == self.handled and self.sent > 0

    @property
    def rejection(self) -> str:
        """Why this run has no figures; empty when it has."""
        if self.complete:
            return ""
        return self.trouble or f"handled {self.handled} of {self.sent} messages"


@dataclass(frozen=True)
class Side:
    """One of the things that a case compares, run in a process of its own."""

    name: str
    #: ``module:function``, called as ``function(folder, **parameters)``; gives a Sample.
    run: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    #: Parameters that differ in the quick version.
    quick: Mapping[str, Any] = field(default_factory=dict)
    #: Left out of the quick version: shown for information only.
    only_full: bool = False

    def arguments(self, quick: bool) -> dict[str, Any]:
        return {**self.parameters, **(self.quick if quick else {})}


Samples = Mapping[str, Sequence[Sample]]


def figures(samples: Samples, side: str, figure: str) -> list[float]:
    """That figure of every complete run of a side."""
    return [sample.figures[figure] for sample in samples.get(side, ()) if sample.complete]


@dataclass(frozen=True)
class Goal:
    """A figure of ``subject``, alone or against the same (or another) figure of ``peer``.

    Without ``least`` and ``most`` it is shown for information.
    """

    title: str
    subject: str
    figure: str
    peer: str | None = None
    peer_figure: str | None = None
    #: With a peer: the quotient, else the difference.
    ratio: bool = True
    least: float | None = None
    most: float | None = None
    unit: str = "x"

    def measure(self, samples: Samples) -> Measured:
        ours = figures(samples, self.subject, self.figure)
        if self.peer is None:
            return Measured(self, _median(ours), _median(ours), None, ours)
        theirs = figures(samples, self.peer, self.peer_figure or self.figure)
        each = [self._set_against(a, b) for a, b in zip(ours, theirs, strict=False)]
        if not ours or not theirs:
            return Measured(self, None, _median(ours), _median(theirs), each)
        value = self._set_against(median(ours), median(theirs))
        return Measured(self, value, median(ours), median(theirs), each)

    def _set_against(self, ours: float, theirs: float) -> float:
        return ours / theirs if self.ratio else ours - theirs

    @property
    def wanted(self) -> str:
        if self.least is not None:
            return f">= {self.least:g} {self.unit}"
        if self.most is not None:
            return f"<= {self.most:g} {self.unit}"
        return "-"


@dataclass(frozen=True)
class Measured:
    """A goal and what came out: the value of the medians, and that of each repetition."""

    goal: Goal
    value: float | None
    subject: float | None
    peer: float | None
    each: Sequence[float]

    @property
    def met(self) -> bool | None:
        """None where nothing was asked for or nothing was measured."""
        goal = self.goal
        if self.value is None or (goal.least is None and goal.most is None):
            return None
        return (goal.least is None or self.value >= goal.least) and (
            goal.most is None or self.value <= goal.most
        )


@dataclass(frozen=True)
class Case:
    """Sides that are run in turn, and the goals that their figures answer."""

    name: str
    title: str
    sides: Sequence[Side]
    goals: Sequence[Goal]
    repetitions: int = 3


def percentile(values: Sequence[float], percent: float) -> float:
    """Of the sorted values the one at ``len * percent / 100``, capped at the last."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None
