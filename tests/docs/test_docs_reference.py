"""Everything a user can name stands in the reference, and its tables are those that the code makes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import click
import pytest
from celery.utils.dispatch import Signal
from docs_pages import REFERENCE, ROOT, reference

import cfqueue
from cfqueue import errors, limits, signals, testing
from cfqueue.cli import main as command_line
from cfqueue.config.settings import APPLICATION, CONSUMER, QUEUE
from cfqueue.messages import DEAD_LETTER_HEADERS, REASONS


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def generate() -> Any:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_tables_are_current(generate):
    stale = [Path(path).name for path, text, fresh in generate.pages() if text != fresh]
    assert stale == [], "run: python docs/generate.py"


@pytest.mark.parametrize("name", sorted({*APPLICATION, *CONSUMER, *QUEUE}))
def test_every_setting_is_in_the_reference(name):
    assert f"| `{name}` |" in page("settings.md")


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, each in vars(errors).items()
        if isinstance(each, type) and each.__module__ == errors.__name__
    ],
)
def test_every_error_is_in_the_reference(name):
    assert f"| `{name}` |" in page("errors.md")


@pytest.mark.parametrize("name", [name for name in vars(limits) if name.isupper() and name != "CLOUDFLARE"])
def test_every_limit_is_in_the_reference(name):
    assert f"| `{name}` |" in page("limits.md")


@pytest.mark.parametrize("name", [name for name, each in vars(signals).items() if isinstance(each, Signal)])
def test_every_signal_is_in_the_reference_with_its_arguments(name):
    row = next(line for line in page("signals.md").splitlines() if line.startswith(f"| `{name}` |"))
    assert all(f"`{argument}`" in row for argument in getattr(signals, name).providing_args)


@pytest.mark.parametrize("name", sorted(cfqueue.__all__))
def test_every_public_name_is_in_the_reference(name):
    assert f"`{name}`" in page("python.md")


@pytest.mark.parametrize("name", sorted(testing.__all__))
def test_every_name_of_the_test_kit_is_in_the_reference(name):
    assert name in page("python.md")


def test_every_command_and_option_is_in_the_reference(generate):
    text = page("command-line.md")
    for path, command in generate.commands(command_line, ("cfqueue",)):
        heading = f"### `{' '.join(path)}`\n"
        assert heading in text
        section = text.partition(heading)[2].partition("\n### ")[0]
        for param in command.params:
            if isinstance(param, click.Option) and not param.hidden:
                assert all(f"`{name}`" in section for name in param.opts), f"{path}: {param.opts}"


@pytest.mark.parametrize("name", [*REASONS, *DEAD_LETTER_HEADERS])
def test_every_reason_and_header_of_a_dead_letter_is_described(name):
    assert f"`{name}`" in page("wire-format.md")
    howto = (ROOT / "docs" / "howto" / "retries-and-dead-letters.md").read_text(encoding="utf-8")
    assert f"`{name}`" in howto


def test_public_methods_of_queue_and_handler_are_in_the_reference():
    from cfqueue.handler import Producing
    from cfqueue.producer import Queue

    text = reference()
    missing = {
        name
        for owner in (Queue, Producing)
        for name in vars(owner)
        if not name.startswith("_")
        and name not in {"build", "publish", "function"}
        and f"`{name}" not in text
    }
    assert missing == set()
