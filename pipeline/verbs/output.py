"""What verbs share about output: exit codes of verdicts, and where people and machines read."""

import json
import sys
from pathlib import Path

from pydantic import JsonValue
from rich.console import Console
from rich.text import Text

from pipeline.measuring.verdict import Verdict
from pipeline.report.fusion_words import bisection_lines, fusion_lines
from pipeline.report.report import Report
from pipeline.report.search_words import search_lines
from pipeline.report.sensor_words import energy_words
from pipeline.report.table import show_checks

MOST_ISLANDS = 2
"""Causes of float islands that are printed; the report has all."""
EXIT_CODES = {Verdict.PASS: 0, Verdict.FAIL: 3, Verdict.UNDECIDED: 5}


def console_for_people(*, as_json: bool) -> Console:
    """Return standard output, or standard error where standard output is a machine's."""
    return Console(stderr=as_json, highlight=False)


def write_json(value: JsonValue) -> None:
    """Write one JSON document to standard output."""
    sys.stdout.write(json_text(value))


def json_text(value: JsonValue) -> str:
    """Return one JSON document as every verb writes it."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def show_outcome(console: Console, report: Report, folder: Path) -> None:
    """Print the verdict of every budget, the figures beside it, and where the files are."""
    console.print(Text(_headline(report)), soft_wrap=True)
    show_checks(console, report.checks, report.verdict)
    lines = fusion_lines(report.fusion, MOST_ISLANDS) if report.fusion else []
    lines += [energy_words(report.energy)] if report.energy else []
    searched = search_lines(report.search) if report.search else []
    for line in (*searched, *bisection_lines(report.parity), *lines):
        console.print(Text(line), soft_wrap=True)
    for name, path in (
        ("report", folder / "report.html"),
        ("release", folder / "release" / f"{report.recipe}-{report.version}-{report.deployment}.zip"),
    ):
        if path.exists():
            console.print(Text(f"{name}: {path}"), soft_wrap=True)


def _headline(report: Report) -> str:
    head = f"{report.recipe} {report.version} on {report.deployment} ({report.target}, {report.precision})"
    if report.untrained:
        return f"{head}: first answer, from the untrained student; nothing was trained (--train-anyway goes on)"
    if not report.accuracy:
        return head
    accuracy = report.accuracy
    return (
        f"{head}: {accuracy.metric} teacher {accuracy.teacher:.2%}, student {accuracy.student:.2%}, "
        f"quantized {accuracy.quantized:.2%}, on the device {accuracy.on_device:.2%} "
        f"of {accuracy.num_samples:,} test samples"
    )
