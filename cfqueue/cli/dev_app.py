"""The Celery app that the worker of ``cfqueue dev`` runs: the one that ``CFQUEUE_APP`` names.

``celery -A`` takes a Celery app only; this also lets ``--app module:cf`` name a CFQueue.
"""

from __future__ import annotations

import os
import sys

from cfqueue.cli import tie  # noqa: F401 - ends the worker when `cfqueue dev` is gone
from cfqueue.cli.application import NoSuchModule, load
from cfqueue.cli.output import Failure

try:
    app = load(os.environ["CFQUEUE_APP"]).celery
except NoSuchModule as failure:
    print(failure.format_message(), file=sys.stderr)  # noqa: T201 - the worker's output
    sys.exit(2)  # as for any other mistake on the command line
except Failure as failure:
    sys.exit(failure.format_message())
