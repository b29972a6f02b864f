"""What a queue means: messages, batches, outcomes, retries, crashes.

The law of this room: no Celery, kombu, SQL or Flask; no clock of its own (the caller passes the time); no
reading or writing of anything outside. What is decided here is returned as a value and carried out elsewhere.

    content    bodies, content types, and the arguments of a send
    envelope   the wire form: how a message is written
    reading    the wire form: how a delivered message is read
    message    Message and MessageBatch, what a handler receives and may call
    batching   Batcher: where a batch is formed
    settle     where an outcome is decided
    outcome    Ack, Retry, DeadLetter, Drop, and the reasons
    crash      what happens to messages when something dies
"""

from cfqueue.messages.batching import Batcher
from cfqueue.messages.content import (
    ContentType,
    check_delay,
    check_priority,
    check_queue_name,
    content_type_of,
    decode_body,
    encode_body,
)
from cfqueue.messages.crash import (
    ALONE,
    FRESH,
    SUSPECT,
    CrashRetry,
    OutcomeMemory,
    Turns,
    child_died,
    company,
    merge,
    overdrawn,
    returned,
)
from cfqueue.messages.envelope import (
    DEAD_LETTER_HEADERS,
    TASK_PREFIX,
    Delivery,
    OutgoingMessage,
    build_message,
    check_headers,
    dead_letter_headers,
    known_version,
)
from cfqueue.messages.message import BacklogMetrics, Message, MessageBatch, Metadata
from cfqueue.messages.outcome import REASONS, Ack, DeadLetter, Drop, ErrorInfo, Outcome, Retry
from cfqueue.messages.reading import read_message
from cfqueue.messages.settle import CallRecord, ConsumerSettings, buried, resolve, settle

__all__ = [
    "ALONE",
    "DEAD_LETTER_HEADERS",
    "FRESH",
    "REASONS",
    "SUSPECT",
    "TASK_PREFIX",
    "Ack",
    "BacklogMetrics",
    "Batcher",
    "CallRecord",
    "ConsumerSettings",
    "ContentType",
    "CrashRetry",
    "DeadLetter",
    "Delivery",
    "Drop",
    "ErrorInfo",
    "Message",
    "MessageBatch",
    "Metadata",
    "Outcome",
    "OutcomeMemory",
    "OutgoingMessage",
    "Retry",
    "Turns",
    "build_message",
    "buried",
    "check_delay",
    "check_headers",
    "check_priority",
    "check_queue_name",
    "child_died",
    "company",
    "content_type_of",
    "dead_letter_headers",
    "decode_body",
    "encode_body",
    "known_version",
    "merge",
    "overdrawn",
    "read_message",
    "resolve",
    "returned",
    "settle",
]
