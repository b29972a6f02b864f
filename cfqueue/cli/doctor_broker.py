"""The doctor's checks of the broker: is it there, may it be written, will it last."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from kombu.connection import Connection
from kombu.utils.url import maybe_sanitize_url

from cfqueue.brokers import SQLITE_URL, open_broker
from cfqueue.cli.application import Application
from cfqueue.cli.finding import Finding
from cfqueue.cli.mount import file_system, is_network
from cfqueue.database import check_place, sqlite_path
from cfqueue.errors import BrokerUnavailable, CFQueueError, ConfigurationError

#: SQLite releases in which a checkpoint and a write at the same moment can damage a file
#: (sqlite.org, release notes of 3.51.3: the WAL-reset bug).
WAL_RESET_BUG = ((3, 7, 0), (3, 51, 2))
#: Free bytes below which a write may soon fail, and below which it is time to look.
LITTLE_SPACE = 50_000_000
SOME_SPACE = 500_000_000
#: Seconds to wait for a broker on the network.
PATIENCE = 5


def broker_findings(application: Application) -> list[Finding]:
    """Every finding about the broker of the queues, and about Celery's own where it is another."""
    conf = application.celery.conf
    celery_url = str(conf.broker_write_url or conf.broker_url or "amqp://")
    if application.cf is None:
        return _broker(celery_url)
    url = application.cf.broker_url
    findings = []
    try:
        open_broker(url)
    except CFQueueError as error:
        findings.append(Finding("broker", "error", _line(error), "Correct this; nothing can be sent."))
    else:
        findings += _broker(url)
    if url != celery_url:
        findings.append(_reachable(celery_url, "Celery's own broker"))
    return findings


def _broker(url: str) -> list[Finding]:
    if url.startswith(SQLITE_URL):
        try:
            path = Path(sqlite_path(url))
        except ConfigurationError as error:
            return [Finding("broker", "error", _line(error), "Correct the URL; nothing can be sent.")]
        return [*_sqlite_library(), *_file(path, url)]
    findings = [_reachable(url)]
    if url.startswith("memory:"):
        findings.append(
            Finding(
                "durability",
                "error",
                "The broker is this process's memory: every message is gone when it ends.",
                "Use cfqueue+sqlite:////path/queues.db, or a broker of its own.",
            )
        )
    return findings


def _sqlite_library() -> list[Finding]:
    version = sqlite3.sqlite_version
    first, last = WAL_RESET_BUG
    if first <= sqlite3.sqlite_version_info <= last:
        return [
            Finding(
                "SQLite version",
                "info",
                f"SQLite {version} is fine, as long as only cfqueue writes to the file "
                "(other programs need 3.51.3 or later).",
            )
        ]
    return [Finding("SQLite version", "ok", f"SQLite {version}.")]


def _file(path: Path, url: str) -> list[Finding]:
    place = _place(path)
    findings = [*_address(path, url), *place]
    if place:
        return findings
    findings += _permission(path)
    if not any(finding.level == "error" for finding in findings):
        if path.exists():
            answer = _reachable(url)
            findings.append(answer)
            if answer.level == "ok":
                findings += _journal(path)
        else:
            findings.append(Finding("broker", "ok", f"{path} does not exist yet; it is made at first use."))
    findings.append(_space(path.parent))
    findings += _mount(path.parent)
    return findings


def _address(path: Path, url: str) -> list[Finding]:
    if url.removeprefix(SQLITE_URL).startswith("//"):
        return []
    return [
        Finding(
            "broker file",
            "error",
            f"The URL {url} is relative: every folder that a process starts in has another file "
            f"(here {path}).",
            "Give an absolute path, which has four slashes: cfqueue+sqlite:////var/lib/shop/queues.db",
        )
    ]


def _place(path: Path) -> list[Finding]:
    """What the worker would refuse to open at all."""
    try:
        check_place(str(path))
    except BrokerUnavailable as error:
        return [Finding("broker file", "error", _line(error), _making(path))]
    except ConfigurationError as error:
        return [Finding("file system", "error", _line(error), "Put the file on a local disk.")]
    return []


def _making(path: Path) -> str:
    """The command that makes the file's folder, as root where this user may not."""
    if path.is_dir():
        return f"For example {path / 'queues.db'}"
    folder = path.parent
    there = next(parent for parent in folder.parents if parent.exists())
    if not there.is_dir():
        return f"{there} is a file; name another folder."
    shown = shlex.quote(str(folder))
    if os.access(there, os.W_OK | os.X_OK):
        return f"mkdir -p {shown}"
    return f'sudo mkdir -p {shown} && sudo chown "$USER" {shown}'


def _permission(path: Path) -> list[Finding]:
    for place, mode in ((path, os.R_OK | os.W_OK), (path.parent, os.R_OK | os.W_OK | os.X_OK)):
        if place.exists() and not os.access(place, mode):
            return [
                Finding(
                    "broker file",
                    "error",
                    f"This user may not write {place}; SQLite also writes files beside the database.",
                    f"Give the user that runs workers and producers write access to {place}.",
                )
            ]
    return [Finding("broker file", "ok", f"{path} can be written.")]


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _reachable(url: str, what: str = "The broker") -> Finding:
    shown = maybe_sanitize_url(url)
    try:
        with Connection(url, connect_timeout=PATIENCE) as connection:  # type: ignore[no-untyped-call]
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=PATIENCE)
    except CFQueueError as error:
        return Finding("broker", "error", _line(error), "Correct this; nothing can be sent.")
    except Exception as error:  # each kombu transport has errors of its own
        return Finding(
            "broker",
            "error",
            f"{what} {shown} cannot be reached: {_line(error)}",
            "Start it, or correct its URL.",
        )
    return Finding("broker", "ok", f"{what} {shown} answers.")


def _journal(path: Path) -> list[Finding]:
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=PATIENCE)) as db:
            mode = str(db.execute("PRAGMA journal_mode").fetchone()[0])
    except sqlite3.Error as error:
        return [_unreadable(path, error)]
    if mode.lower() == "wal":
        return [
            Finding("durability", "ok", "The file is in WAL mode; each send is on disk before it returns.")
        ]
    return [
        Finding(
            "durability",
            "warn",
            f"The file is in {mode} mode: readers and writers block each other.",
            "Start a worker once (it turns WAL on); if it stays, the file system does not allow WAL.",
        )
    ]


def _unreadable(path: Path, error: sqlite3.Error) -> Finding:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return Finding(
            "durability",
            "error",
            f"{path} is damaged, or is not a SQLite database: {error}.",
            "Stop what uses it, keep it with its -wal file, and restore it from a copy under another name.",
        )
    return Finding(
        "durability",
        "error",
        f"{path} cannot be read now: {error}. This says nothing about what is in it.",
        "See that this user may read the file and its folder, and that no other program holds it locked.",
    )


def _space(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    shown = f"{free / 1e9:.1f} GB" if free >= 1e9 else f"{free / 1e6:.0f} MB"
    text = f"{shown} are free where the broker's file is"
    if free < LITTLE_SPACE:
        return Finding("disk", "error", f"{text}; a send may fail at any moment.", "Make room on this disk.")
    if free < SOME_SPACE:
        return Finding("disk", "warn", f"{text}.", "Make room before a backlog fills it.")
    return Finding("disk", "ok", f"{text}.")


def _mount(folder: Path) -> list[Finding]:
    kind = file_system(folder)
    if kind is None:
        return []
    if is_network(kind):
        return [
            Finding(
                "file system",
                "warn",
                f"The broker's file is on a network file system ({kind}), where SQLite's locks are not safe.",
                "Put the file on a local disk; for several machines use a broker of its own.",
            )
        ]
    return [Finding("file system", "ok", f"The broker's file is on a local file system ({kind}).")]
