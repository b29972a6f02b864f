"""Every number with an outside source, in one place.

Source of the Cloudflare numbers: developers.cloudflare.com/queues (platform/limits,
configuration/configure-queues, reference/error-codes) and the schema of miniflare 4
(cloudflare/workers-sdk, ``packages/miniflare/src/workers/queues/schemas.ts``), both as of 2026-11-22.
A kilobyte there is 1,000 bytes.

A deployment can raise the sizes (``cfqueue_max_message_bytes`` and the like): a broker of one's
own has no 128 KB rule. ``Limits`` carries the numbers that apply to one application.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Largest encoded body, in bytes ("128 KB"; error 10204 MessageSizeOutOfBounds).
MAX_MESSAGE_BYTES = 128_000
#: Most messages in one ``send_batch`` (error 10206 BatchCountOutOfBounds).
MAX_SEND_BATCH_COUNT = 100
#: Most encoded body bytes in one ``send_batch``, summed ("256 KB"; error 10205 BatchSizeOutOfBounds).
MAX_SEND_BATCH_BYTES = 256_000
#: Longest delay of a message or a retry, in seconds (24 h since February 2026; it was 12 h before).
MAX_DELAY_SECONDS = 86_400

#: Consumer settings: smallest, largest and default value, as Cloudflare documents them.
MAX_BATCH_SIZE_RANGE = (1, 100)
DEFAULT_MAX_BATCH_SIZE = 10
#: Seconds from the first message of a partial batch until it is flushed.
MAX_BATCH_TIMEOUT_RANGE = (0, 60)
DEFAULT_MAX_BATCH_TIMEOUT = 5
#: ``max_retries=N`` gives at most N + 1 deliveries.
MAX_RETRIES_RANGE = (0, 100)
DEFAULT_MAX_RETRIES = 3
#: Batches in flight for one queue over all its workers.
MAX_CONCURRENCY_RANGE = (1, 250)
#: Seconds before a failed message is delivered again.
DEFAULT_RETRY_DELAY = 0

#: Queue names: letters, digits and dashes, with a letter or digit at both ends.
MAX_QUEUE_NAME_LENGTH = 63

#: Wall-clock seconds that one handler invocation may take (Cloudflare: 15 minutes).
DEFAULT_TIME_LIMIT = 900

#: Priorities, an addition to Cloudflare's model: 9 is delivered first, 0 last.
PRIORITY_RANGE = (0, 9)
DEFAULT_PRIORITY = 0

#: Seconds without a beat after which an owner that still holds its lock counts as stopped
#: (30 s: the field's usual lease; procrastinate, PGQueuer and BullMQ use the same).
STALLED_OWNER_SECONDS = 30.0
#: Seconds between two beats of an owner: a sixth of the above, so that one late beat is harmless.
BEAT_SECONDS = 5.0

#: Size of error text kept with a dead letter, in characters: enough for a message and the last
#: frames of a traceback, small beside the 128,000 bytes of a body.
MAX_ERROR_MESSAGE_CHARS = 1_000
MAX_TRACEBACK_CHARS = 4_000
#: Largest header section of a delivered message that is read, in bytes.
MAX_HEADER_BYTES = 64_000
#: Deepest JSON nesting of a delivered body that is read; CPython's own parser stops near its
#: recursion limit (1,000 by default), and a body must never be able to reach it.
MAX_JSON_DEPTH = 500


@dataclass(frozen=True, slots=True)
class Limits:
    """The sizes that apply to one application; Cloudflare's unless a deployment raised them."""

    message_bytes: int = MAX_MESSAGE_BYTES
    send_batch_count: int = MAX_SEND_BATCH_COUNT
    send_batch_bytes: int = MAX_SEND_BATCH_BYTES
    delay_seconds: int = MAX_DELAY_SECONDS


CLOUDFLARE = Limits()
