"""What the processes of a run are told through environment variables."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: The package of this file as it was imported: ``tests.chaos``, or ``chaos`` when only tests/ is on the path.
PACKAGE = __package__ or "tests.chaos"
_ROOTS = (Path(__file__).parents[PACKAGE.count(".") + 1], Path(__file__).parents[2])


@dataclass(frozen=True, slots=True)
class Environment:
    """One run's folder and broker, and one process' name in it."""

    folder: Path
    broker_url: str
    stall_seconds: float = 3.0
    worker: str = ""  # name and incarnation, such as w2.5
    bug: str = ""  # a name of bugs.py

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    def gate(self, name: str) -> Path:
        """The file that lets a waiting handler go on."""
        return self.folder / "gates" / name

    def prepare(self) -> None:
        """Make the folders of a new run."""
        for name in ("ledger", "gates", "logs"):
            (self.folder / name).mkdir(parents=True)

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Environment:
        return cls(
            folder=Path(environ["CHAOS_FOLDER"]),
            broker_url=environ["CHAOS_BROKER_URL"],
            stall_seconds=float(environ["CFQUEUE_STALLED_OWNER_SECONDS"]),
            worker=environ.get("CHAOS_WORKER", ""),
            bug=environ.get("CHAOS_BUG", ""),
        )

    def variables(self) -> dict[str, str]:
        """The environment of a process of this run."""
        path = [*map(str, _ROOTS), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(part for part in path if part),
            "PYTHONUNBUFFERED": "1",
            "CHAOS_FOLDER": str(self.folder),
            "CHAOS_BROKER_URL": self.broker_url,
            "CHAOS_WORKER": self.worker,
            "CHAOS_BUG": self.bug,
            "CFQUEUE_STALLED_OWNER_SECONDS": str(self.stall_seconds),
        }


def python(module: str, *arguments: str) -> list[str]:
    """The command line of a module of this package, run by the interpreter that runs this."""
    return [sys.executable, "-m", f"{PACKAGE}.{module}", *arguments]


def celery(*arguments: str) -> list[str]:
    """The command line of Celery with this package's application."""
    return [sys.executable, "-m", "celery", "-A", f"{PACKAGE}.app", *arguments]


def broker_url(broker: str, folder: Path) -> str:
    """Where a run's messages live: a broker family that needs no server, or any kombu URL."""
    if broker == "sqlite":
        return f"cfqueue+sqlite:///{folder / 'broker.db'}"
    if "://" in broker:
        return broker
    raise SystemExit(f"--broker {broker}: give sqlite, or a URL.")
