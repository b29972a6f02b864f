"""The small fault-injection run: 2,000 messages, 10 kills, nothing lost."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from .__main__ import broker_url, show
from .environment import Environment
from .run import Run, Size

#: Another seed is another run: ``CHAOS_SEED=7 python -m pytest -m chaos``.
SEED = int(os.environ.get("CHAOS_SEED", "1"))
STALL = 3.0


@pytest.mark.chaos
@pytest.mark.worker
@pytest.mark.timeout(240)
def test_nothing_is_lost_of_2000_messages_under_10_kills(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    began = time.monotonic()
    report = Run(Environment(folder, broker_url("sqlite", folder), STALL), Size(SEED, 2_000, 10)).run()
    text = show(report, SEED, time.monotonic() - began)
    print(text)
    assert report.clean, f"{text}\nledger and logs: {folder}"
