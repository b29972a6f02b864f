"""``cfqueue doctor``: look at an application and its broker, and say what needs doing."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import Any

import click

from cfqueue.cli.application import Application, app_option, chosen_or_default
from cfqueue.cli.doctor_application import application_findings, settings_table
from cfqueue.cli.doctor_broker import broker_findings
from cfqueue.cli.finding import Finding
from cfqueue.cli.output import Failure, Output, reporting
from cfqueue.errors import CFQueueError

_STYLES = {"ok": "green", "info": "cyan", "warn": "yellow", "error": "bold red"}


@click.command()
@app_option
@reporting
def doctor(output: Output, spec: str | None) -> None:
    """Check broker, configuration and handlers; say what each finding means and what to do.

    Exit status 1 when something needs doing.
    """
    application, findings = _examined(spec)
    if application:
        findings += application_findings(application)
        findings += broker_findings(application)
    table = settings_table(application) if application else []
    _show(output, application, findings, table)
    if any(finding.needs_doing for finding in findings):
        raise click.exceptions.Exit(1)


def _examined(spec: str | None) -> tuple[Application | None, list[Finding]]:
    """Load the application; what it warns of and why it cannot be loaded are findings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            application = chosen_or_default(spec)
            if application.cf is not None:
                application.cf.config  # noqa: B018 - it is read when first needed, and that is now
        except (Failure, CFQueueError) as error:
            text = error.format_message() if isinstance(error, Failure) else str(error)
            advice = "Correct this first; nothing else was checked."
            return None, [Finding("configuration", "error", text, advice)]
    # The same file can be read more than once.
    texts = dict.fromkeys(
        str(each.message) for each in caught if type(each.message).__module__.startswith("cfqueue.")
    )
    ours = [Finding("configuration", "warn", text, "Correct the setting, or remove it.") for text in texts]
    fine = Finding("configuration", "ok", f"{application.spec} loads without a warning.")
    return application, ours or [fine]


def _show(
    output: Output, application: Application | None, findings: list[Finding], table: list[dict[str, Any]]
) -> None:
    if not output.as_json:
        for finding in findings:
            output.finding(
                finding.level, _STYLES[finding.level], finding.check, finding.meaning, finding.action
            )
        if table:
            rows = [["-" if value is None else str(value) for value in row.values()] for row in table]
            output.table("How each queue is consumed", [key.replace("_", " ") for key in table[0]], rows)
        todo = sum(finding.needs_doing for finding in findings)
        output.line(_sum(todo, len(findings)))
    output.document(
        {
            "ok": not any(finding.needs_doing for finding in findings),
            "application": application.spec if application else None,
            "findings": [asdict(finding) for finding in findings],
            "consumers": table,
        }
    )


def _sum(todo: int, of: int) -> str:
    if not todo:
        return "Nothing needs doing."
    return f"{todo} of {of} findings {'needs' if todo == 1 else 'need'} doing."
