"""What the demo says: before, after, and what to try next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from cfqueue.cli.demo_account import Account
from cfqueue.cli.demo_files import DamagedCopy, ListedFile
from cfqueue.cli.output import Output
from cfqueue.cli.places import KEPT, is_cleaned_up
from cfqueue.cli.scripts import typed

#: Dead letters that the table shows; all of them are in the results.
SHOWN = 20


def introduce(
    output: Output, damaged: DamagedCopy, files: Sequence[ListedFile], packages: int, of: int, folder: Path
) -> None:
    """Say what is about to happen."""
    some = "" if packages == of else f" ({packages} of {of} packages; --limit 0 checks all)"
    output.line(f"Auditing {len(files):,} files of {packages} installed Python packages{some}.", style="bold")
    output.line("Each file is one message: hashed by a Celery worker, compared with its package's RECORD.")
    package = damaged.changed.distribution.partition(" (")[0]
    output.line(
        f"A copy of {package} was damaged on purpose: {damaged.changed.path} "
        f"has one byte changed, {damaged.removed.path} is removed, {damaged.late.path} appears late."
    )
    output.line(f"Everything lies in {folder}")
    if is_cleaned_up(folder):
        output.line(f"(the folders of the last {KEPT} demos are kept, older ones are removed)")
    output.line()


def show(output: Output, account: Account) -> None:
    """Show the account: for people as tables, with ``--json`` as the document."""
    sending, figures = account.sending, account.figures
    counted = account.reasons()
    reasons = " and ".join(f"{n} {why}" if len(counted) > 1 else f"all {why}" for why, n in counted.items())
    first = figures.deliveries - figures.retries
    checked = f", {account.speed:,.0f} messages/s checked in full batches" if account.speed else ""
    output.line()
    output.table(
        "What happened",
        ("", ""),
        [
            ("sent", f"{sending.messages:,} messages in {calls_in_words(sending.calls)}"),
            ("batches", f"{figures.batches}, on average {figures.mean_batch_size:.1f} messages"),
            ("delivered", f"{first:,} first deliveries and {figures.retries} retries"),
            ("retried", f"{figures.retried_messages} messages; {len(account.recovered)} of them succeeded"),
            ("intact", f"{len(account.intact):,} files"),
            ("dead-lettered", f"{len(account.dead_letters)} messages, {reasons}"),
            ("speed", f"{sending.rate:,.0f} messages/s sent{checked}"),
            ("took", f"{account.seconds:.1f} s, with the worker's start and the retries' delays"),
            ("results", str(account.folder / "results.db")),
        ],
    )
    rows = [
        (letter.path, letter.distribution, _findings(account.findings.get(letter.number, ())), letter.reason)
        for letter in account.dead_letters[:SHOWN]
    ]
    output.table("Dead letters", ("file", "package", "found on each delivery", "reason"), rows)
    if len(account.dead_letters) > SHOWN:
        output.line(f"… and {len(account.dead_letters) - SHOWN} more in the results.")
    for file in account.recovered:
        output.line(f"{file.path} was missing at first and intact on delivery {file.attempt}.")
    own = [letter for letter in account.dead_letters if "(damaged copy)" not in letter.distribution]
    if own:
        output.line(f"{len(own)} of these were not damaged by the demo: they differ on this machine.")
    problems = account.problems()
    if problems:
        output.line("The account does not add up:", style="bold red")
        for problem in problems:
            output.line(f"  {problem}")
    else:
        output.line(
            f"The account adds up: {len(account.intact):,} intact + {len(account.dead_letters):,} "
            f"dead-lettered = {sending.messages:,} sent.",
            style="bold green",
        )
    output.document(account.to_dict())


def _findings(findings: Sequence[str]) -> str:
    """What each delivery found; the same thing each time is said once."""
    if len(set(findings)) == 1:
        return f"{findings[0]}, {len(findings)} times" if len(findings) > 1 else findings[0]
    return " → ".join(findings)


def tell_what_next(output: Output, folder: Path) -> None:
    """Commands that work while the demo's worker runs; long paths stand on lines of their own."""
    celery, cfqueue = typed("celery", "celery"), typed("cfqueue", "cfqueue.cli")
    output.line()
    output.line(
        "The worker is still running. What to try next, in another terminal in this folder:", style="bold"
    )
    output.line(f"  export CFQUEUE_DEMO_FOLDER={shlex.quote(str(folder))}")
    output.line('  tail -f "$CFQUEUE_DEMO_FOLDER"/worker.log')
    output.line(f"  {cfqueue} queues list -A cfqueue.cli.demo_app")
    output.line(f"  {celery} -A cfqueue.cli.demo_app inspect stats")
    output.line("Or a project of your own, in a folder hello:")
    output.line(f"  {cfqueue} init hello")
    output.line(f"The demo's whole program: {Path(__file__).with_name('demo_app.py')}")
    output.line("Ctrl-C stops the worker.")


def calls_in_words(count: int) -> str:
    """How often ``send_batch`` was called, in words."""
    return f"{count} call{'' if count == 1 else 's'} of send_batch"
