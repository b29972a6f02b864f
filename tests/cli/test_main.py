"""The command itself: versions, help, and errors that are one line."""

import json
import sys

import pytest
from click.testing import CliRunner

from cfqueue.cli import main


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CFQUEUE_APP", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return run


def test_the_version_names_what_it_stands_on(run):
    result = run("--version")
    assert result.exit_code == 0
    assert result.output.startswith("cfqueue ")
    assert "Celery 5." in result.output
    assert "SQLite 3." in result.output


def test_help_lists_every_command(run):
    result = run("--help")
    assert result.exit_code == 0
    for command in ("demo", "dev", "doctor", "init", "queues"):
        assert f"  {command} " in result.output


@pytest.mark.parametrize("command", ["demo", "dev", "doctor", "init"])
def test_every_command_takes_json(run, command):
    assert "--json" in run(command, "--help").output


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["demo", "--port", "x"], ["demo", "--limit", "-1"], ["dev"]]
)
def test_wrong_usage_ends_with_status_2(run, arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_dev_without_an_application_says_what_to_give(run):
    assert "Which application? Give --app module:cf" in run("dev").output


@pytest.mark.parametrize(
    ("text", "spec", "error"),
    [
        (None, "nowhere:cf", "There is no module 'nowhere'"),
        ("import nothing_like_this", "shop", "No module named 'nothing_like_this' (shop.py:1)"),
        ("cf = 1", "shop:cf", "shop:cf is of type int, neither a CFQueue nor a Celery app."),
        ("cf = 1", "shop:other", "Module 'shop' has no 'other'."),
        ("cf = 1", "shop", "Module 'shop' has neither a CFQueue nor a Celery app."),
        ("def (", "shop", "shop cannot be imported: SyntaxError: invalid syntax (shop.py:1)"),
        ("import zlib; zlib.decompress(b'')", "shop", "(shop.py:1)"),
        ("import json\njson.loads('x')", "shop", "(shop.py:2)"),
        ("raise SystemExit(3)", "shop", "shop cannot be imported: SystemExit: 3 (shop.py:1)"),
    ],
)
def test_an_application_that_cannot_be_loaded_is_one_clear_line(
    run, tmp_path, monkeypatch, text, spec, error
):
    if text is not None:
        (tmp_path / "shop.py").write_text(text)
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    result = run("queues", "list", "--app", spec)
    assert result.exit_code == 1
    assert error in result.output
    assert len(result.output.strip().splitlines()) == 1
    sys.modules.pop("shop", None)


def test_an_error_with_json_is_a_document(run):
    result = run("queues", "list", "--app", "nowhere", "--json")
    assert result.exit_code == 1
    assert "There is no module 'nowhere'" in json.loads(result.stdout)["error"]


@pytest.mark.parametrize("command", [["doctor"], ["queues", "list"], ["dev"]])
@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("./app.py", "Give app, not ./app.py"),
        ("app.py:cf", "Give app:cf, not app.py:cf"),
        ("shop/queues.py", "Give shop.queues, not shop/queues.py"),
        ("", "--app is empty"),
    ],
)
def test_a_file_in_the_place_of_a_module_is_wrong_usage(run, tmp_path, command, spec, text):
    (tmp_path / "app.py").write_text("raise SystemExit(9)")
    result = run(*command, "-A", spec)
    assert result.exit_code == 2
    assert text in result.output
