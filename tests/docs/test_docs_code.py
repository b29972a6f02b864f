"""The Python of the pages runs: README, quickstart and the page on tests as they stand, the rest compiles."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from docs_pages import PAGES, ROOT, blocks, name_of

from cfqueue.config import load

PATIENCE = 40.0
_NAMED = re.compile(r"Save this as `(\w+\.py)`:\s*\Z")
_FIRST_LINE = re.compile(r"# (\w+\.py)\n")
#: What a worker's log has before a line that a handler printed, or before a message.
_PREFIX = re.compile(r"^\[[^\]]*\] ")


def environment(folder: Path) -> dict[str, str]:
    """A clean one: no settings of ours, our own data directory, the package importable."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CFQUEUE_")}
    return {
        **clean,
        "CFQUEUE_HOME": str(folder / "home"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
        "PYTHONUNBUFFERED": "1",
    }


def python(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def worker(folder: Path, *arguments: str) -> Iterator[Path]:
    """A ``celery`` worker as the page starts it; gives its log."""
    log = folder / "worker.log"
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", *arguments],
            cwd=folder,
            env=environment(folder),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            yield log
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def expect(log: Path, lines: list[str]) -> None:
    """Wait until the log has these lines in this order; ``…`` stands for anything."""
    patterns = [re.compile(".+".join(map(re.escape, line.split("…"))) + r"\s*") for line in lines]
    deadline = time.monotonic() + PATIENCE
    while True:
        text = log.read_text(encoding="utf-8", errors="replace")
        waiting = list(patterns)
        for line in text.splitlines():
            if waiting and waiting[0].fullmatch(_PREFIX.sub("", line)):
                waiting.pop(0)
        if not waiting:
            return
        assert time.monotonic() < deadline, f"missing {waiting[0].pattern!r} in:\n{text}"
        time.sleep(0.1)


def save(page: Path, folder: Path) -> list[str]:
    """Every Python block of a page as a file, in order, by the name that the page gives it."""
    names = []
    for number, block in enumerate(blocks(page, "python"), 1):
        found = _NAMED.search(block.before) or _FIRST_LINE.match(block.text)
        names.append(found[1] if found else f"block_{number}.py")
        (folder / names[-1]).write_text(block.text, encoding="utf-8")
    return names


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "docs/quickstart.md", ROOT / "docs/howto/test-handlers.md"],
    ids=name_of,
)
def test_every_block_runs(page, tmp_path):
    for name in save(page, tmp_path):
        python(tmp_path, name)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_python(page):
    for block in blocks(page, "python"):
        compile(block.text, name_of(page), "exec")


@pytest.mark.worker
def test_the_program_of_the_readme_does_what_it_says(tmp_path):
    page = ROOT / "README.md"
    save(page, tmp_path)
    [shown] = [block.text.splitlines() for block in blocks(page, "text")]
    with worker(tmp_path, "-A", "shop", "worker", "--loglevel", "INFO") as log:
        assert python(tmp_path, "shop.py") == "sent 3 messages\n"
        expect(log, shown)


@pytest.mark.worker
def test_the_quickstart_prints_what_it_shows(tmp_path):
    page = ROOT / "docs" / "quickstart.md"
    names = save(page, tmp_path)
    shown = [block.text.splitlines() for block in blocks(page, "text")]
    assert python(tmp_path, "photos.py") == "sent 3 messages\n"
    with worker(tmp_path, "-A", "photos", "worker", "--loglevel", "INFO") as log:
        expect(log, shown[0])
    assert names[1] == "block_2.py"
    assert python(tmp_path, "block_2.py").splitlines() == shown[1]


def test_wrangler_files_of_the_pages_load(tmp_path):
    found = [block for page in PAGES for block in blocks(page, "toml")]
    assert found
    for block in found:
        config = load(tomllib.loads(block.text), environ={})
        assert config.consumers
