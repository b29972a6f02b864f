"""Ends a worker that a command of ours started when that command is gone, even if it was killed.

The command holds the other end of the worker's stdin; when it closes, the worker shuts down warmly.
``CFQUEUE_CLI_TIED`` says that this is so; a worker started by hand is not affected.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from celery.signals import worker_init

TIED = "CFQUEUE_CLI_TIED"


def watch_stdin(**_: Any) -> None:
    """Start the watching thread in the worker's main process."""
    if os.environ.get(TIED) == "1":
        threading.Thread(target=_watch, name="cfqueue-tie", daemon=True).start()


worker_init.connect(watch_stdin)


def _watch() -> None:
    # os.read and not sys.stdin, whose lock a forked pool child could inherit while it is held.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
