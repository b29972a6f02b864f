"""The doctor: each finding has a level, a meaning and, when something needs doing, an action."""

import json
import os
import sqlite3
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from cfqueue.cli import doctor_broker, main
from cfqueue.cli.application import Application
from cfqueue.cli.doctor_application import application_findings, pool_of, settings_table
from cfqueue.cli.doctor_broker import database_path
from cfqueue.messages import ConsumerSettings


def application(*settings, **conf):
    cf = SimpleNamespace(consumers={each.queue: SimpleNamespace(settings=each) for each in settings})
    return Application("shop", SimpleNamespace(conf=conf), cf)


def found(application):
    return {(finding.check, finding.level) for finding in application_findings(application)}


GOOD = ConsumerSettings("jobs", time_limit=900, dead_letter_queue="jobs-dlq")


def test_a_handler_with_defaults_needs_nothing():
    assert found(application(GOOD)) == {("handlers", "ok"), ("time limits", "ok"), ("dead letters", "info")}
    assert settings_table(application(GOOD))[0]["queue"] == "jobs"


def test_no_handler_needs_doing():
    assert ("handlers", "warn") in found(application())


@pytest.mark.parametrize(
    ("settings", "conf", "finding"),
    [
        (ConsumerSettings("jobs", time_limit=None), {}, ("time limits", "warn")),
        (ConsumerSettings("jobs", time_limit=5), {"worker_pool": "threads"}, ("time limits", "warn")),
        (ConsumerSettings("jobs", time_limit=900), {"worker_pool": "solo"}, ("time limits", "info")),
        (
            ConsumerSettings("jobs", time_limit=900, soft_time_limit=1),
            {"worker_pool": "solo"},
            ("time limits", "warn"),
        ),
        (ConsumerSettings("jobs", dead_letter_queue=None), {}, ("dead letters", "info")),
        (GOOD, {"task_always_eager": True}, ("durability", "warn")),
    ],
)
def test_what_needs_doing(settings, conf, finding):
    assert finding in found(application(settings, **conf))


def test_every_finding_that_needs_doing_says_what_to_do():
    for each in application_findings(application(worker_pool="solo", task_always_eager=True)):
        assert each.meaning.endswith((".", "!"))
        assert each.action or not each.needs_doing


def test_pools_by_alias_and_by_path():
    assert pool_of({}) == "prefork"
    assert pool_of({"worker_pool": "celery.concurrency.thread:TaskPool"}) == "threads"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("cfqueue+sqlite:////srv/a%20b.db", Path("/srv/a b.db")),
        ("cfqueue:////srv/a.db?x=1", Path("/srv/a.db")),
        ("cfqueue+sqlite:///a.db", Path("a.db")),
        ("amqp://localhost//", None),
        ("sqla+sqlite:///a.db", None),
    ],
)
def test_the_file_of_a_broker_url(url, path):
    assert database_path(url) == path


@pytest.mark.parametrize(
    ("version", "level"),
    [((3, 40, 1), "info"), ((3, 51, 2), "info"), ((3, 51, 3), "ok"), ((3, 53, 0), "ok")],
)
def test_the_wal_reset_bug_is_information(monkeypatch, version, level):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    assert [finding.level for finding in doctor_broker._sqlite_library()] == [level]


@pytest.mark.parametrize(("free", "level"), [(1_000, "error"), (100_000_000, "warn"), (10**10, "ok")])
def test_little_room_on_the_disk(monkeypatch, tmp_path, free, level):
    monkeypatch.setattr(doctor_broker.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert doctor_broker._space(tmp_path).level == level


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    assert [each.level for each in doctor_broker._permission(tmp_path / "a.db")] == ["error"]


def test_a_relative_file_needs_doing():
    assert [each.level for each in doctor_broker._permission(Path("a.db"))] == ["warn"]


def test_a_network_file_system_needs_doing(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor_broker, "file_system", lambda _: "nfs4")
    assert [each.level for each in doctor_broker._mount(tmp_path)] == ["warn"]


def test_a_file_that_is_no_database(tmp_path):
    file = tmp_path / "a.db"
    file.write_bytes(b"not a database" * 100)
    assert [each.level for each in doctor_broker._journal(file)] == ["error"]


@pytest.fixture
def doctor(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CFQUEUE_APP", raising=False)
    monkeypatch.delenv("CFQUEUE_BROKER_URL", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("app", "shop"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield lambda *arguments: CliRunner().invoke(main, ["doctor", *arguments])
    for name in ("app", "shop"):
        sys.modules.pop(name, None)


def test_a_new_project_needs_nothing(doctor, tmp_path):
    CliRunner().invoke(main, ["init", str(tmp_path)])
    result = doctor()
    assert result.exit_code == 0, result.output
    assert "Nothing needs doing." in result.output
    assert "1 handler: jobs." in result.output
    assert "jobs-dlq" in result.output
    assert not (tmp_path / "queues.db").exists(), "looking must not create the broker's file"


def test_json_is_one_document(doctor, tmp_path):
    CliRunner().invoke(main, ["init", str(tmp_path)])
    document = json.loads(doctor("--app", "app:cf", "--json").stdout)
    assert document["ok"] is True
    assert document["consumers"][0]["queue"] == "jobs"
    assert {"check", "level", "meaning", "action"} == set(document["findings"][0])


def test_a_mistake_in_the_configuration_is_a_finding(doctor, tmp_path):
    CliRunner().invoke(main, ["init", str(tmp_path)])
    file = tmp_path / "wrangler.toml"
    file.write_text(file.read_text().replace("max_batch_size = 10", "max_batch_size = 1000"))
    result = doctor()
    assert result.exit_code == 1
    assert "max_batch_size" in result.output
    assert "Traceback" not in result.output


def test_an_unknown_key_is_a_warning(doctor, tmp_path):
    CliRunner().invoke(main, ["init", str(tmp_path)])
    with (tmp_path / "wrangler.toml").open("a") as file:
        file.write("max_retrys = 3\n")
    result = doctor()
    assert result.exit_code == 1
    assert "max_retrys" in result.output


def test_a_celery_app_without_queues(doctor, tmp_path):
    (tmp_path / "shop.py").write_text("from celery import Celery\napp = Celery('shop', broker='memory://')\n")
    result = doctor("-A", "shop")
    assert result.exit_code == 1
    assert "every message is gone when it ends" in result.output
