"""Sides of the pretended case in test_bench_harness.py."""

import os
from pathlib import Path

from benchmarks.model import Sample


def work(folder: Path, sent: int, handled: int) -> Sample:
    assert folder.is_dir()
    return Sample(sent, handled, {"rate": 5.0})


def broken(folder: Path) -> Sample:
    raise RuntimeError("pretended")


def dead(folder: Path) -> Sample:
    os._exit(7)
