"""Ties a worker that a command of ours started to that command.

The command holds the other end of the worker's stdin; when it closes, even because the command was killed,
the worker shuts down warmly. ``CFQUEUE_CLI_TIED`` says that this is so, and names the descriptor at which
the worker says that it is ready; a worker started by hand is not affected.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import Any

from celery.signals import worker_init, worker_ready

TIED = "CFQUEUE_CLI_TIED"


def watch_stdin(**_: Any) -> None:
    """Start the watching thread in the worker's main process."""
    if TIED in os.environ:
        threading.Thread(target=_watch, name="cfqueue-tie", daemon=True).start()


def say_ready(**_: Any) -> None:
    """Tell the command that the worker consumes now."""
    if TIED in os.environ:
        with suppress(OSError):  # the command has gone
            os.write(int(os.environ[TIED]), b"r")


worker_init.connect(watch_stdin)
worker_ready.connect(say_ready)


def _watch() -> None:
    # os.read and not sys.stdin, whose lock a forked pool child could inherit while it is held.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
