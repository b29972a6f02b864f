"""The machine and the versions that a result rests on. Rates of two machines cannot be compared."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import sqlite3
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.model import percentile
from cfqueue.database import file_system

_PACKAGES = ("cfqueue", "celery", "kombu", "billiard", "SQLAlchemy")


def describe(folder: str | None = None) -> dict[str, Any]:
    """What to write beside a result; takes about a tenth of a second."""
    place = folder or tempfile.gettempdir()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "file_system": file_system(place),
        "load_average": round(os.getloadavg()[0], 2),
        "fdatasync_4k_us": round(_fdatasync(place)),
        "loopback_us": round(_loopback()),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "from this repository"


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _fdatasync(place: str) -> float:
    """Median of 100 appends of 4 KiB, in microseconds: what a durable commit costs at least."""
    times = []
    with tempfile.TemporaryFile(dir=place) as file:
        for _ in range(100):
            started = time.perf_counter()
            os.write(file.fileno(), bytes(4096))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    return percentile(times, 50) * 1e6


def _loopback() -> float:
    """Median of 300 echoes of 60 bytes over TCP, in microseconds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_echo, args=(server,), daemon=True)
        thread.start()
        with socket.create_connection(server.getsockname()) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            times = []
            for _ in range(300):
                started = time.perf_counter()
                client.sendall(bytes(60))
                client.recv(60)
                times.append(time.perf_counter() - started)
        thread.join()
    return percentile(times, 50) * 1e6


def _echo(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(60):
            connection.sendall(data)
