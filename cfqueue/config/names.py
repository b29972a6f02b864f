"""What queues and bindings may be called.

Queue names are Cloudflare's: 1 to 63 letters, digits and dashes, with a letter or digit at both
ends (developers.cloudflare.com/queues/get-started). Bindings become attributes of ``env``.
"""

from __future__ import annotations

import keyword
import re

from cfqueue import limits

QUEUE_NAME_RULE = (
    f"1 to {limits.MAX_QUEUE_NAME_LENGTH} letters (a-z, A-Z), digits and dashes, "
    "with a letter or digit at both ends"
)
BINDING_RULE = "a name that can stand after `env.`: letters, digits and underscores, not first a digit"

_QUEUE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_DEAD_LETTER_SUFFIX = "-dlq"
_HASH_DIGITS = 8


def is_queue_name(value: object) -> bool:
    """Whether Cloudflare would take this as the name of a queue."""
    return (
        isinstance(value, str)
        and len(value) <= limits.MAX_QUEUE_NAME_LENGTH
        and _QUEUE_NAME.fullmatch(value) is not None
    )


def queue_name_like(value: object) -> str | None:
    """Guess the queue name that a bad one may have meant, for an error text."""
    if not isinstance(value, str):
        return None
    guess = re.sub(r"[^A-Za-z0-9-]+", "-", value).strip("-")[: limits.MAX_QUEUE_NAME_LENGTH].strip("-")
    return guess or None


def is_binding(value: object) -> bool:
    """Whether ``env.<value>`` can be written and belongs to the user."""
    return (
        isinstance(value, str)
        and value.isidentifier()
        and not keyword.iskeyword(value)
        and not (value.startswith("__") and value.endswith("__"))
    )


def binding_of(queue: str) -> str:
    """Name the binding of a queue that declares none: ``jobs`` is ``JOBS``, ``mail-out`` ``MAIL_OUT``."""
    return queue.upper().replace("-", "_")


def dead_letter_name(queue: str) -> str:
    """Name the default dead-letter queue: ``<queue>-dlq``, shortened with a hash when longer than 63.

    The hash is of the whole name, so two long queues do not share one by accident.
    """
    name = queue + _DEAD_LETTER_SUFFIX
    if len(name) <= limits.MAX_QUEUE_NAME_LENGTH:
        return name
    import hashlib

    digest = hashlib.sha256(queue.encode()).hexdigest()[:_HASH_DIGITS]
    kept = limits.MAX_QUEUE_NAME_LENGTH - len(_DEAD_LETTER_SUFFIX) - _HASH_DIGITS - 1
    return f"{queue[:kept].rstrip('-')}-{digest}{_DEAD_LETTER_SUFFIX}"
