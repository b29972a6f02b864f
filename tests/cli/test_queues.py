"""`cfqueue queues list` and `info`, also as `celery queues`."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta

import pytest
from click.testing import CliRunner

from cfqueue import CFQueue
from cfqueue.cli import main
from cfqueue.cli.celery_plugin import _ago


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
    counts = {row["queue"]: row["waiting"] for row in json.loads(result.stdout)["queues"]}
    assert counts["jobs"] == 2


def test_info_of_one_queue(project):
    project.handle.send({"number": 1})
    result = queues("info", "jobs", "--json")
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)
    assert row["waiting"] == 1
    assert list(row) == ["queue", "waiting", "bytes", "delayed", "in_flight", "oldest"]
    assert datetime.fromisoformat(row["oldest"]).microsecond == 0
    shown = queues("info", "jobs").output
    assert "in flight" in shown
    assert " s ago" in shown


def test_a_queue_that_is_not_there(project):
    result = queues("info", "job")
    assert result.exit_code == 1
    assert "There is no queue 'job' in app. Known: jobs" in result.output


def test_list_names_what_it_shows(project, tmp_path):
    assert f"app, in {tmp_path / 'queues.db'}:" in queues("list").output
    document = json.loads(queues("list", "--json").stdout)
    assert document["application"] == "app"
    assert document["broker"] == str(tmp_path / "queues.db")


def test_without_a_program_the_queues_in_the_default_file_are_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CFQUEUE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CFQUEUE_APP", raising=False)
    monkeypatch.delenv("CFQUEUE_BROKER_URL", raising=False)
    empty = queues("list")
    assert empty.exit_code == 0, empty.output
    assert "There is no queue." in empty.output
    assert not (tmp_path / "home" / "queues.db").exists()
    cf = CFQueue()
    cf.queues["photos-dlq"].send({"name": "notes.txt"})
    shown = queues("list")
    assert f"the embedded default, in {tmp_path / 'home' / 'queues.db'}:" in shown.output
    assert "photos-dlq" in shown.output
    assert "No program was named." in shown.output
    assert json.loads(queues("info", "photos-dlq", "--json").stdout)["waiting"] == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s ago"), (119, "119 s ago"), (120, "2 min ago"), (7200, "2 h ago"), (200_000, "2 d ago")],
)
def test_the_age_of_the_oldest_message(seconds, text):
    assert _ago(timedelta(seconds=seconds)) == text


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
