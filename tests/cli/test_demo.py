"""`cfqueue demo` with a real worker: the account adds up, and the worker never stays behind."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.worker
DEMO = [sys.executable, "-m", "cfqueue.cli", "demo", "--limit", "60"]


@pytest.fixture
def environment(tmp_path):
    path = os.pathsep.join(each for each in sys.path if each)
    return {**os.environ, "CFQUEUE_HOME": str(tmp_path), "PYTHONPATH": path}


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


@pytest.fixture
def running(environment, tmp_path):
    """A demo that stays, once its worker runs."""
    with (tmp_path / "out").open("wb") as out:
        demo = subprocess.Popen(DEMO, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:

        def worker_and_two_children():
            assert demo.poll() is None, (tmp_path / "out").read_text()
            family = psutil.Process(demo.pid).children(recursive=True)
            return family if len(family) >= 3 else None

        family = until(worker_and_two_children)
        yield demo, family
    finally:
        if demo.poll() is None:
            demo.kill()
        demo.wait()


def test_the_account_adds_up(environment):
    done = subprocess.run(
        [*DEMO, "--exit", "--json"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    account = json.loads(done.stdout)
    assert account["ok"] is True
    assert account["intact"] + account["dead_lettered"] == account["sent"]
    assert account["dead_letter_reasons"]["retries_exhausted"] >= 2
    findings = [each["findings"] for each in account["dead_letters"] if "damaged copy" in each["package"]]
    assert sorted(findings) == [["content differs"] * 3, ["missing"] * 3]
    assert len(account["recovered"]) == 1
    assert account["folder"].startswith(environment["CFQUEUE_HOME"])


def test_without_a_terminal_it_prints_plain_lines(environment):
    done = subprocess.run([*DEMO, "--exit"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    assert "The account adds up" in done.stdout


def test_ctrl_c_stops_the_worker(running):
    demo, family = running
    demo.send_signal(signal.SIGINT)
    assert demo.wait(30) == 130
    assert psutil.wait_procs(family, timeout=5)[1] == []


def test_a_demo_that_is_killed_takes_its_worker_with_it(running):
    demo, family = running
    demo.kill()
    assert psutil.wait_procs(family, timeout=30)[1] == []


def test_it_stays_until_it_is_stopped(running, tmp_path):
    demo, family = running
    until(lambda: "Ctrl-C stops the worker." in (tmp_path / "out").read_text())
    assert all(process.is_running() for process in family[:1])
    demo.terminate()
    assert demo.wait(30) == 128 + signal.SIGTERM
    assert psutil.wait_procs(family, timeout=5)[1] == []


def test_when_the_worker_dies_it_says_so_and_fails(running, tmp_path):
    demo, family = running
    until(lambda: "Ctrl-C stops the worker." in (tmp_path / "out").read_text())
    family[0].kill()
    assert demo.wait(30) == 1
    assert "Error: The worker ended with status -9." in (tmp_path / "out").read_text()
    assert psutil.wait_procs(family, timeout=30)[1] == []
