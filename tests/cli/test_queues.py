"""`cfqueue queues list` and `info`, also as `celery queues`."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from cfqueue.cli import main


@pytest.fixture
def project(tmp_path, monkeypatch):
    CliRunner().invoke(main, ["init", str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    sys.modules.pop("app", None)
    import app

    yield app
    sys.modules.pop("app", None)


def queues(*arguments):
    return CliRunner().invoke(main, ["queues", *arguments])


def test_list_shows_what_waits(project):
    project.handle.send_batch([{"body": {"number": 1}}, {"body": {"number": 2}}])
    result = queues("list", "--json")
    assert result.exit_code == 0, result.output
    counts = {row["queue"]: row["backlog_count"] for row in json.loads(result.stdout)["queues"]}
    assert counts["jobs"] == 2


def test_info_of_one_queue(project):
    project.handle.send({"number": 1})
    result = queues("info", "jobs", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["backlog_count"] == 1


def test_a_queue_that_is_not_there(project):
    result = queues("info", "job")
    assert result.exit_code == 1
    assert "There is no queue 'job'. Known: jobs" in result.output


def test_under_celery_it_is_the_same_group(project, monkeypatch):
    from celery.bin.celery import celery

    from cfqueue.cli.celery_plugin import queues as group

    monkeypatch.setitem(celery.commands, "queues", group)
    result = CliRunner().invoke(celery, ["-A", "app", "queues", "list", "--json"])
    assert result.exit_code == 0, result.output
    assert "jobs" in [row["queue"] for row in json.loads(result.stdout)["queues"]]


def test_the_plug_in_is_light_and_registers_the_broker_alias():
    # Celery imports it for every `celery` command.
    program = (
        "import sys, cfqueue.cli.celery_plugin\n"
        "from kombu.transport import TRANSPORT_ALIASES\n"
        "assert 'cfqueue' in TRANSPORT_ALIASES\n"
        "assert not {'rich', 'sqlalchemy', 'flask'} & set(sys.modules), sorted(sys.modules)\n"
    )
    path = os.pathsep.join(each for each in sys.path if each)
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONPATH": path})
