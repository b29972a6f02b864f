"""Every example prints what its last lines say, started by the commands that its first lines name."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from pathlib import Path

import pytest
from docs_pages import ROOT
from test_docs_code import expect, python, worker

EXAMPLES = ROOT / "examples"
PROGRAMS = sorted(path for path in EXAMPLES.rglob("*.py"))
_COMMAND = re.compile(r"^    (celery|python) ([^#\n]+)", re.MULTILINE)


def commands(program: Path) -> list[list[str]]:
    """The commands that the docstring names, in its order."""
    text = ast.get_docstring(ast.parse(program.read_text(encoding="utf-8"))) or ""
    return [[tool, *shlex.split(rest)] for tool, rest in _COMMAND.findall(text)]


def output(program: Path) -> list[str]:
    """The lines after ``# Output``, to the end of the file."""
    lines = program.read_text(encoding="utf-8").partition("\n# Output")[2].splitlines()[1:]
    return [line.removeprefix("#").removeprefix(" ") for line in lines]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_every_example_says_how_it_is_run_and_what_it_prints(program):
    assert commands(program)
    assert output(program)
    assert f"({program.relative_to(EXAMPLES)})" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "program", [path for path in PROGRAMS if len(commands(path)) == 1], ids=lambda path: path.stem
)
def test_program(program, tmp_path):
    copied = shutil.copy(program, tmp_path)
    assert python(tmp_path, copied).splitlines() == output(program)


@pytest.mark.worker
@pytest.mark.parametrize(
    "program", [path for path in PROGRAMS if len(commands(path)) == 2], ids=lambda path: path.stem
)
def test_program_with_a_worker(program, tmp_path):
    for file in program.parent.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    send = next(arguments for tool, *arguments in commands(program) if tool == "python")
    serve = next(arguments for tool, *arguments in commands(program) if tool == "celery")
    # Sent first where the example says so; and it must make no difference where it does not.
    python(tmp_path, *send)
    with worker(tmp_path, *serve) as log:
        expect(log, output(program))
