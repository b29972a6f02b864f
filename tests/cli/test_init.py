"""`cfqueue init` writes a project that works at once, and overwrites nothing."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from cfqueue.cli import main
from cfqueue.cli.init import project_name
from cfqueue.cli.scripts import typed, typed_python


def init(*arguments):
    return CliRunner().invoke(main, ["init", *(str(argument) for argument in arguments)])


@pytest.mark.parametrize(
    ("folder", "name"),
    [("Hello World", "hello-world"), ("_x_", "x"), ("日本", "queues"), ("a" * 80, "a" * 63)],
)
def test_the_projects_name_comes_from_the_folder(tmp_path, folder, name):
    assert project_name(tmp_path / folder) == name


def test_it_writes_four_files_and_says_what_to_run(tmp_path):
    result = init(tmp_path / "shop")
    assert result.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "shop").iterdir()) == [
        "README.md",
        "app.py",
        "test_handler.py",
        "wrangler.toml",
    ]
    assert f"cd {tmp_path / 'shop'} && " in result.output
    assert " dev  " in result.output
    assert "python app.py" in result.output


def test_commands_are_typed_as_this_shell_finds_them(tmp_path, monkeypatch):
    scripts = tmp_path / "venv" / "bin"
    scripts.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(scripts / "python3"))
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.chdir(tmp_path)
    assert typed("cfqueue", "cfqueue.cli") == f"{scripts}/python3 -m cfqueue.cli"
    for name in ("cfqueue", "python"):
        (scripts / name).write_text("#!/bin/sh\n")
        (scripts / name).chmod(0o755)
    assert typed("cfqueue", "cfqueue.cli") == "venv/bin/cfqueue"
    assert typed("cfqueue", "cfqueue.cli", anywhere=True) == f"{scripts}/cfqueue"
    assert typed_python() == f"{scripts}/python3"
    monkeypatch.setenv("PATH", f"{scripts}{os.pathsep}{os.defpath}")
    assert typed("cfqueue", "cfqueue.cli") == "cfqueue"
    assert typed_python() == "python"


@pytest.mark.parametrize("place", ["/dev/null", "file"])
def test_what_is_no_folder_is_wrong_usage(tmp_path, place):
    (tmp_path / "file").touch()
    result = init(tmp_path / place)
    assert result.exit_code == 2
    assert "is not a folder" in result.output


def test_it_refuses_to_overwrite_and_names_the_files(tmp_path):
    (tmp_path / "app.py").write_text("mine")
    (tmp_path / "README.md").write_text("mine")
    result = init(tmp_path)
    assert result.exit_code == 1
    assert "already has app.py, README.md. Nothing was written" in result.output
    assert (tmp_path / "app.py").read_text() == "mine"
    assert not (tmp_path / "wrangler.toml").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    result = init(tmp_path / "file" / "shop")
    assert result.exit_code == 1
    assert "cannot be written" in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_json(tmp_path):
    document = json.loads(init(tmp_path / "shop", "--json").stdout)
    assert document["files"] == ["wrangler.toml", "app.py", "test_handler.py", "README.md"]
    assert len(document["next"]) == 2


def test_the_projects_own_tests_pass(tmp_path):
    init(tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@pytest.mark.worker
def test_a_folder_with_every_kind_of_sign(tmp_path):
    folder = tmp_path / "my projét #1 50% a?b"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment.pop("CFQUEUE_BROKER_URL", None)

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    init(folder)
    run("app.py")
    assert "ok    durability" in run("-m", "cfqueue.cli", "doctor")
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "app", "worker", "--pool=solo", "--loglevel=WARNING"],
        cwd=folder,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with worker:
        for line in worker.stdout:
            if "number 3, attempt 2" in line:
                worker.terminate()
                break
        else:
            pytest.fail("the worker ended")
        worker.communicate(timeout=30)
    rows = json.loads(run("-m", "cfqueue.cli", "queues", "list", "--json"))
    assert rows["broker"] == str(folder / "queues.db")
    assert [row["waiting"] + row["in_flight"] + row["delayed"] for row in rows["queues"]] == [0, 0]
