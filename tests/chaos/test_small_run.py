"""The small fault-injection run: 2,000 messages, 10 kills, nothing lost."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from .environment import Environment, broker_url
from .report import Result, page, table
from .run import Run, Size

#: Another seed is another run: ``CHAOS_SEED=7 python -m pytest -m chaos``.
SEED = int(os.environ.get("CHAOS_SEED", "1"))
#: Seconds without a beat after which a stopped worker's messages go to others.
STALL = 3.0


@pytest.mark.chaos
@pytest.mark.worker
@pytest.mark.timeout(240)
def test_nothing_is_lost_of_2000_messages_under_10_kills(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    size = Size(SEED, messages=2_000, kills=10)
    began = time.monotonic()
    report = Run(Environment(folder, broker_url("sqlite", folder), STALL), size).run()
    result = Result(size, "sqlite", time.monotonic() - began, report)
    assert report.clean, f"{table(result)}\nledger and logs: {folder}"
    assert "0 lost, 0 phantom" in table(result)
    assert "| lost | 0 |" in page([result])
