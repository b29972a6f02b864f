"""`cfqueue dev` restarts its worker on a change and stops it on Ctrl-C."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from click.testing import CliRunner

from cfqueue.cli import main

pytestmark = pytest.mark.worker


@pytest.fixture
def dev(tmp_path):
    """A running `cfqueue dev` in a new project; call it for what it has printed so far."""
    project = tmp_path / "project"
    CliRunner().invoke(main, ["init", str(project)])
    path = os.pathsep.join(each for each in sys.path if each)
    log = tmp_path / "out"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "cfqueue.cli", "dev", "--", "--pool=solo"],
            cwd=project,
            env={**os.environ, "PYTHONPATH": path},
            stdout=out,
            stderr=subprocess.STDOUT,
        )

    def wait_for(text, times=1):
        deadline = time.monotonic() + 40
        while log.read_text().count(text) < times:
            assert time.monotonic() < deadline, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)

    wait_for.log = log.read_text
    yield project, process, wait_for
    if process.poll() is None:
        process.kill()
    process.wait()


def test_it_delivers_restarts_and_stops(dev):
    project, process, wait_for = dev
    wait_for(" ready.")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    subprocess.run([sys.executable, "app.py"], cwd=project, env=environment, check=True)
    wait_for("number 5, attempt 1")
    wait_for("number 3, attempt 2")
    app = project / "app.py"
    app.write_text(app.read_text() + "\n# changed\n")
    wait_for("app.py changed: worker restarted in")
    assert wait_for.log().count(" ready.") == 2, "it is said when the worker is ready, not before"
    app.write_text(app.read_text() + "\ndef (\n")
    wait_for("waiting for a change")
    wait_for("SyntaxError")
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert psutil.wait_procs(family, timeout=5)[1] == []


@pytest.mark.parametrize("arguments", [["-A", "nope"], ["--", "--pol=solo"], ["--loglevel", "NOPE"]])
def test_a_command_line_that_cannot_work_ends_it(tmp_path, arguments):
    CliRunner().invoke(main, ["init", str(tmp_path)])
    path = os.pathsep.join(each for each in sys.path if each)
    done = subprocess.run(
        [sys.executable, "-m", "cfqueue.cli", "dev", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "nope" in done.stderr.lower() or "--pol" in done.stderr
