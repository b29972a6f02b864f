"""The doctor: each finding has a level, a meaning and, when something needs doing, an action."""

import json
import os
import sqlite3
import subprocess
import sys
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from cfqueue.brokers import open_broker
from cfqueue.cli import doctor_broker, main
from cfqueue.cli.application import Application
from cfqueue.cli.doctor_application import application_findings, pool_of, settings_table
from cfqueue.cli.doctor_broker import broker_findings
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
        (ConsumerSettings("celery", time_limit=900), {}, ("handlers", "warn")),
        (GOOD, {"task_default_queue": "jobs"}, ("handlers", "warn")),
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


def of_broker(url):
    celery = SimpleNamespace(conf=SimpleNamespace(broker_write_url=None, broker_url=url))
    return broker_findings(Application("shop", celery, SimpleNamespace(broker_url=url)))


@pytest.mark.parametrize(
    "name", ["queues.db", "my proj\u00e9t #1 50% a?b/queues.db", "a%20b;c&d.db", "/two slashes/queues.db"]
)
def test_it_looks_at_the_file_that_the_broker_opens(tmp_path, name):
    file = tmp_path / name.lstrip("/")
    file.parent.mkdir(exist_ok=True)
    slashes = "/" if name.startswith("/") else ""
    url = f"cfqueue+sqlite:///{slashes}{quote(str(file))}"
    assert any(f"{file} does not exist yet" in each.meaning for each in of_broker(url))
    open_broker(url).declare(["jobs"])
    assert file.exists()
    found = of_broker(url)
    assert not [each for each in found if each.needs_doing], found
    assert ("durability", "ok") in {(each.check, each.level) for each in found}


def test_a_folder_that_is_not_there_is_an_error_with_the_command_that_makes_it(tmp_path):
    folder = tmp_path / "not there"
    (error,) = [
        each for each in of_broker(f"cfqueue+sqlite:///{quote(str(folder))}/q.db") if each.needs_doing
    ]
    assert f"the folder {folder} does not exist" in error.meaning
    assert error.action == f"mkdir -p '{folder}'"


def test_a_folder_that_only_root_can_make(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor_broker.os, "access", lambda *_: False)
    action = doctor_broker._making(tmp_path / "shop" / "q.db")
    assert action == f'sudo mkdir -p {tmp_path}/shop && sudo chown "$USER" {tmp_path}/shop'


def test_a_folder_in_the_place_of_the_file(tmp_path):
    assert any(
        "is a folder" in each.meaning
        for each in of_broker(f"cfqueue+sqlite:///{tmp_path}")
        if each.needs_doing
    )


@pytest.mark.parametrize("url", ["cfqueue+sqlite:///:memory:", "cfqueue+sqlite://", "redis://localhost"])
def test_a_broker_that_cannot_hold_queues(url):
    assert [each for each in of_broker(url) if each.level == "error" and each.check == "broker"]


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


def test_a_relative_file_needs_doing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (error,) = [each for each in of_broker("cfqueue+sqlite:///a.db") if each.needs_doing]
    assert error.level == "error"
    assert str(tmp_path / "a.db") in error.meaning
    assert "four slashes" in error.action


def test_a_network_file_system_needs_doing(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor_broker, "file_system", lambda _: "nfs4")
    assert [each.level for each in doctor_broker._mount(tmp_path)] == ["warn"]


def test_a_file_that_is_no_database(tmp_path):
    file = tmp_path / "a.db"
    file.write_bytes(b"not a database" * 100)
    (error,) = doctor_broker._journal(file)
    assert error.level == "error"
    assert "damaged" in error.meaning
    assert [each for each in of_broker(f"cfqueue+sqlite:///{file}") if each.level == "error"]


def test_a_file_that_cannot_be_opened_is_not_called_damaged(tmp_path):
    (error,) = doctor_broker._journal(tmp_path / "nothing.db")
    assert error.level == "error"
    assert "damaged" not in error.meaning
    assert "away" not in error.action


@pytest.fixture
def doctor(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CFQUEUE_APP", raising=False)
    monkeypatch.delenv("CFQUEUE_BROKER_URL", raising=False)
    monkeypatch.delenv("CFQUEUE_HOME", raising=False)
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


def test_the_embedded_default_is_healthy(doctor, tmp_path, monkeypatch):
    monkeypatch.setenv("CFQUEUE_HOME", str(tmp_path / "home"))
    (tmp_path / "shop.py").write_text(
        "from cfqueue import CFQueue\ncf = CFQueue()\n@cf.queue('jobs')\ndef handle(batch): pass\n"
    )
    assert doctor("-A", "shop").exit_code == 0
    sys.modules["shop"].handle.send(1)
    result = doctor("-A", "shop")
    assert result.exit_code == 0, result.output
    assert "ok    durability" in result.output


def test_without_a_program_it_says_what_it_looked_at(doctor, tmp_path, monkeypatch):
    monkeypatch.setenv("CFQUEUE_HOME", str(tmp_path / "home"))
    result = doctor()
    assert result.exit_code == 0, result.output
    assert "No program was named: only the embedded default was looked at" in result.output
    assert "No program" not in doctor("--json").stdout.partition("findings")[0]


def test_an_app_without_handlers_needs_doing(doctor, tmp_path, monkeypatch):
    monkeypatch.setenv("CFQUEUE_HOME", str(tmp_path / "home"))
    (tmp_path / "shop.py").write_text("from cfqueue import CFQueue\ncf = CFQueue()\n")
    result = doctor("-A", "shop")
    assert result.exit_code == 1
    assert "a CFQueue and no handler" in result.output
    assert "1 of 7 findings needs doing." in result.output


def test_each_warning_is_said_once(doctor, tmp_path, monkeypatch):
    monkeypatch.setenv("CFQUEUE_HOME", str(tmp_path / "home"))
    (tmp_path / "wrangler.toml").write_text(
        'name = "shop"\n[[queues.consumers]]\nqueue = "jobs"\nmax_batch_sise = 3\n'
    )
    (tmp_path / "shop.py").write_text(
        "from cfqueue import CFQueue\ncf = CFQueue(config='wrangler.toml')\n"
        "@cf.queue('jobs')\ndef handle(batch): pass\n"
    )
    result = doctor("-A", "shop")
    assert result.output.count("max_batch_sise") == 1
    assert "1 of" in result.output


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_that_has_no_arrows(tmp_path, encoding):
    CliRunner().invoke(main, ["init", str(tmp_path / "\u65e5")])
    path = os.pathsep.join(each for each in sys.path if each)
    for arguments in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "cfqueue.cli", "doctor", *arguments],
            cwd=tmp_path / "\u65e5",
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": encoding},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode(encoding)
        assert "->" in text or "\\u2192" in text


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
