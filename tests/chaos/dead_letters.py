"""The rules about dead letters: I4, I13 and C2 of the table in checker.py."""

from __future__ import annotations

from collections.abc import Iterator

from . import plan
from .account import Account
from .ledger import Event
from .violation import Violation

#: Seconds by which two processes' idea of a time may differ.
TOLERANCE = 1.0
#: What a dead letter carries beside its body and id.
HEADERS = ("cfq-reason", "cfq-origin", "cfq-failed-attempts", "cfq-first-failure", "cfq-last-failure")


def check_dead_letters(account: Account, max_retries: dict[str, int]) -> Iterator[Violation]:
    for key, events in account.dead.items():
        yield from _both(account, key)
        yield from _reason(key, events[0])
        yield from _content(account, events[0], max_retries)
        if len(events) > 1 and not any(account.all_windows()):
            yield Violation("I4", f"{key} is in the dead-letter queue {len(events)} times")


def _both(account: Account, key: str) -> Iterator[Violation]:
    acked = [run for run in account.runs.get(key, ()) if run.outcome == "ack"]
    if acked and not any(account.windows[run.worker] for run in acked):
        yield Violation("I4", f"{key} was acked and is dead-lettered too")


def _reason(key: str, event: Event) -> Iterator[Violation]:
    role, reason = plan.role_of(key), event["reason"]
    expected = plan.DEAD_LETTER_REASONS.get(role)
    if reason == "crashed" and expected != "crashed":
        yield Violation(
            "C2", f"{key} is dead-lettered as crashed, but it does not kill its process every time"
        )
    elif reason != expected:
        yield Violation(
            "I13", f"{key} is dead-lettered as {reason}; its handler calls for {expected or 'an ack'}"
        )


def _content(account: Account, event: Event, max_retries: dict[str, int]) -> Iterator[Violation]:
    key, headers, sent = event["key"], event["headers"], account.sent.get(event["key"])
    if sent is None:
        return  # a phantom: I2 says so
    if event["sum"] != sent.checksum:
        yield Violation("I13", f"{key} is dead-lettered with another body than was sent")
    ids = {run.id for run in account.runs.get(key, ())} or {sent.id or event["id"]}
    if event["id"] not in ids:
        yield Violation(
            "I13", f"{key} is dead-lettered under the id {event['id']}; it ran under {sorted(ids)}"
        )
    missing = [name for name in HEADERS if headers.get(name) is None]
    if missing:
        yield Violation("I13", f"{key} is dead-lettered without {', '.join(missing)}")
        return
    if headers["cfq-origin"] != sent.queue:
        yield Violation("I13", f"{key} names the origin {headers['cfq-origin']}; it was sent to {sent.queue}")
    attempts, most = headers["cfq-failed-attempts"], max_retries[sent.queue] + 1
    # A crash in the alone lane is charged before anyone can look, so it may show one attempt more.
    allowed = {"retries_exhausted": {most}, "crashed": {most, most + 1}}.get(event["reason"])
    if allowed is not None and attempts not in allowed:
        yield Violation(
            "I13", f"{key} is dead-lettered ({event['reason']}) after {attempts} attempts, not {most}"
        )
    first, last = headers["cfq-first-failure"] / 1000, headers["cfq-last-failure"] / 1000
    if not sent.began - TOLERANCE <= first <= last <= event["t"] + TOLERANCE:
        yield Violation("I13", f"{key} has failure times out of order: first {first}, last {last}")
