"""Every error that cfqueue raises, in one tree.

    CFQueueError
    ├── ConfigurationError            a setting is wrong: names file, key, value, range
    │   ├── QueueConsumerConflict     two handlers for one queue
    │   └── HandlerSignatureError     the handler cannot be called with (batch[, env[, ctx]])
    ├── InvalidMessage                a bad argument of send / send_batch; nothing was sent
    │   ├── InvalidBody               the body cannot be encoded as its content type
    │   ├── InvalidContentType        not json, text or bytes
    │   ├── InvalidDelay              not a whole number of seconds from 0 to 86,400
    │   ├── InvalidPriority           not a whole number from 0 to 9
    │   ├── InvalidExpiry             not a positive number of seconds, a timedelta or a date
    │   ├── MessageTooLarge           more than 128,000 bytes encoded
    │   └── BatchTooLarge             more than 100 messages or 256,000 bytes; or none
    ├── InvalidQueueName              not 1 to 63 letters, digits and dashes
    ├── MessageRejected               a delivered message cannot be understood
    │   ├── DecodeFailed              reason ``decode_failed``
    │   └── BadArguments              reason ``bad_arguments``
    └── BrokerError                   the broker did not do what was asked
        ├── BrokerUnavailable         certain: nothing was stored
        ├── BrokerFull                certain: nothing was stored, the disk is full
        ├── StoreCorrupt              certain: nothing was stored, the file is damaged
        └── SendUncertain             unknown: the messages may or may not have been stored

Every message says what was wrong and what to do.
"""

from __future__ import annotations


class CFQueueError(Exception):
    """The base of every error of this package."""


class ConfigurationError(CFQueueError):
    """A setting is wrong. The text names where it stands, its value, and what is allowed."""


class QueueConsumerConflict(ConfigurationError):
    """A queue has exactly one consumer (as on Cloudflare, error 11004); a second was declared."""


class HandlerSignatureError(ConfigurationError, TypeError):
    """A handler takes ``(batch)``, ``(batch, env)`` or ``(batch, env, ctx)``, and nothing else."""


class InvalidMessage(CFQueueError, ValueError):
    """A bad argument of ``send`` or ``send_batch``, found before anything was sent."""


class InvalidBody(InvalidMessage, TypeError):
    """The body cannot be encoded as its content type."""


class InvalidContentType(InvalidMessage):
    """The content type is not ``json``, ``text`` or ``bytes``."""


class InvalidDelay(InvalidMessage):
    """A delay is not a whole number of seconds within the allowed range."""


class InvalidPriority(InvalidMessage):
    """A priority is not a whole number from 0 (lowest) to 9 (highest)."""


class InvalidExpiry(InvalidMessage):
    """``expires`` is not a positive number of seconds, a timedelta, or a date with a time zone."""


class MessageTooLarge(InvalidMessage):
    """The encoded body is larger than a message may be."""


class BatchTooLarge(InvalidMessage):
    """A batch has too many messages, too many bytes, or no message at all."""


class InvalidQueueName(CFQueueError, ValueError):
    """A queue name is 1 to 63 letters, digits and dashes, and starts and ends with no dash."""


class MessageRejected(CFQueueError):
    """A delivered message cannot be handed to a handler; it is dead-lettered, never lost."""

    reason = "rejected"


class DecodeFailed(MessageRejected):
    """The bytes of a delivered message are not what its headers say they are."""

    reason = "decode_failed"


class BadArguments(MessageRejected):
    """A Celery message for a queue handler does not carry exactly one positional argument."""

    reason = "bad_arguments"


class BrokerError(CFQueueError):
    """The broker did not do what was asked of it."""


class BrokerUnavailable(BrokerError):
    """The broker could not be reached or was locked. Certain: nothing was stored."""


class BrokerFull(BrokerError):
    """The broker's disk or memory is full. Certain: nothing was stored."""


class StoreCorrupt(BrokerError):
    """The database file is not a usable cfqueue store. Certain: nothing was stored."""


class SendUncertain(BrokerError):
    """A publish was begun and its outcome is unknown: it may or may not have been stored."""
