"""What every test shares: the logs of workers that run are shown with a failure."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    report = yield
    harness = sys.modules.get("worker.harness")
    if report.when == "call" and report.failed and harness is not None:
        for worker in harness.running:
            report.sections.append((f"log of {worker.name}", "\n".join(worker.log().splitlines()[-80:])))
    return report
