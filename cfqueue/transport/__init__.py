"""The embedded broker: a kombu transport on one SQLite file, and the Store beneath it.

The law of this room: between BEGIN and COMMIT nothing but prepared statements is executed, one per
group of operations, under the write lock of `cfqueue.database`. This module imports neither kombu's
transports nor SQLAlchemy, so that `import cfqueue` stays cheap.
"""

from __future__ import annotations

#: The name in ``cfqueue+sqlite:////path.db``.
ALIAS = "cfqueue"
TRANSPORT = "cfqueue.transport.kombu_transport:Transport"


def register() -> None:
    """Make ``cfqueue+sqlite:////path.db`` known to kombu, which has no entry point for transports."""
    from kombu.transport import TRANSPORT_ALIASES

    TRANSPORT_ALIASES[ALIAS] = TRANSPORT
