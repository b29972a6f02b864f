"""The demo's account finds every message that is missing, doubled or foreign."""

import dataclasses
import json
from pathlib import Path

import pytest

from cfqueue.cli.demo_account import Account, Expectation, Sending
from cfqueue.cli.demo_results import CheckedFile, DeadLetter, Figures


def letter(number):
    return DeadLetter(number, "vine 5.1.0 (damaged copy)", "vine/a.py", "retries_exhausted", 3)


GOOD = Account(
    sending=Sending(messages=5, calls=1, seconds=0.5, packages=1, packages_installed=1),
    figures=Figures(10, 4, 2, 5, 3, 3, 2),
    intact=frozenset({3, 4, 5}),
    dead_letters=[letter(1), letter(2)],
    findings={1: ["content differs"] * 3, 2: ["missing"] * 3},
    recovered=[CheckedFile(3, 2, "vine 5.1.0", "vine/c.py", "intact")],
    expectation=Expectation(changed=1, removed=2, late=3),
    waiting=0,
    speed=0.0,
    seconds=3.0,
    folder=Path("demo"),
)


def test_a_complete_account_has_no_problems():
    assert GOOD.problems() == []
    assert GOOD.reasons() == {"retries_exhausted": 2}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"intact": frozenset({3, 4})}, "1 message (5) is neither in the results nor dead-lettered."),
        ({"intact": frozenset({2, 3, 4, 5})}, "1 message (2) is both in the results and dead-lettered."),
        ({"intact": frozenset({3, 4, 5, 77})}, "1 message (77) is not sent by the demo at all."),
        ({"waiting": 4}, "4 messages are still in the queues."),
        ({"recovered": []}, "The file that appeared late (message 3) was not found on a retry."),
        (
            {"expectation": Expectation(changed=4, removed=2, late=3)},
            "The changed file (message 4) was not dead-lettered.",
        ),
    ],
)
def test_what_does_not_add_up_is_said(change, problem):
    account = dataclasses.replace(GOOD, **change)
    assert problem in account.problems()
    assert account.to_dict()["ok"] is False


def test_many_lost_messages_are_counted_and_a_few_named():
    sending = dataclasses.replace(GOOD.sending, messages=20)
    problems = dataclasses.replace(GOOD, sending=sending).problems()
    assert problems == ["15 messages (6, 7, 8, 9, 10, …) are neither in the results nor dead-lettered."]


def test_the_document_is_json():
    document = json.loads(json.dumps(GOOD.to_dict()))
    assert document["ok"] is True
    assert document["sent"] == 5
    assert document["mean_batch_size"] == 2.5
    assert document["dead_letter_reasons"] == {"retries_exhausted": 2}
