"""What becomes of a message once its handler has run: one of four values, and why.

``settle`` decides, the worker, the pull consumers and the test kit carry out.
"""

from __future__ import annotations

import traceback as tracebacks
from dataclasses import dataclass
from typing import Final, Literal

from cfqueue.limits import MAX_ERROR_MESSAGE_CHARS, MAX_TRACEBACK_CHARS

Reason = Literal[
    "retries_exhausted", "crashed", "expired", "decode_failed", "bad_arguments", "rejected", "unroutable"
]

#: Failed on every one of its ``max_retries + 1`` deliveries.
RETRIES_EXHAUSTED: Final = "retries_exhausted"
#: Killed its process, or overran the hard time limit, every time it ran alone.
CRASHED: Final = "crashed"
#: Its ``expires`` had passed before it was delivered.
EXPIRED: Final = "expired"
#: Its bytes are not what its headers say.
DECODE_FAILED: Final = "decode_failed"
#: A Celery message that does not carry exactly one positional argument.
BAD_ARGUMENTS: Final = "bad_arguments"
#: The handler refused it (``raise Reject(requeue=False)``).
REJECTED: Final = "rejected"
#: The queue it was sent to is gone.
UNROUTABLE: Final = "unroutable"

#: Every reason a dead letter can carry; the one vocabulary of headers, signals and reports.
REASONS: Final = (
    RETRIES_EXHAUSTED,
    CRASHED,
    EXPIRED,
    DECODE_FAILED,
    BAD_ARGUMENTS,
    REJECTED,
    UNROUTABLE,
)


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An exception as it is kept with a dead letter: text only, and bounded."""

    type: str
    message: str
    traceback: str | None = None

    @classmethod
    def of(cls, error: BaseException, *, with_traceback: bool = True) -> ErrorInfo:
        """Describe ``error``: never raises, whatever the exception does when it is printed.

        The message keeps its first 1,000 characters, the traceback its last 4,000, where the cause stands.
        """
        kind = type(error)
        name = (
            kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        )
        try:
            message = str(error)
        except Exception:
            message = "<the exception cannot be printed>"
        text: str | None = None
        if with_traceback:
            try:
                text = "".join(tracebacks.format_exception(error))
            except Exception:
                text = None
        return cls(name, message, text).bounded()

    def bounded(self) -> ErrorInfo:
        """Return the same with each text cut to the size in ``limits``, and writable as UTF-8."""
        trace = self.traceback
        return ErrorInfo(
            _writable(self.type[:MAX_ERROR_MESSAGE_CHARS])[:MAX_ERROR_MESSAGE_CHARS],
            _writable(self.message[:MAX_ERROR_MESSAGE_CHARS])[:MAX_ERROR_MESSAGE_CHARS],
            None if trace is None else _writable(trace[-MAX_TRACEBACK_CHARS:])[-MAX_TRACEBACK_CHARS:],
        )


def _writable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True, slots=True)
class Ack:
    """Done: the message is removed."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Deliver again after ``delay_seconds``, with one attempt more."""

    delay_seconds: int
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Move to the dead-letter queue, with the reason in its headers."""

    reason: str
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove without a trace but a log line: the queue was asked to have no dead-letter queue."""

    reason: str
    error: ErrorInfo | None = None


Outcome = Ack | Retry | DeadLetter | Drop

ACK: Final = Ack()
