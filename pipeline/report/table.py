"""The verdict table for a terminal; plain lines where there is none. Rule: shows the report, decides nothing."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.measuring.verdict import Check, Verdict
from pipeline.report.wording import (
    CHECK_NAMES,
    VERDICT_WORDS,
    interval_words,
    limit_words,
    margin_words,
    measured_words,
)

VERDICT_STYLES = {Verdict.PASS: "bold green", Verdict.FAIL: "bold red", Verdict.UNDECIDED: "bold yellow"}


def show_checks(console: Console, checks: Sequence[Check], verdict: Verdict) -> None:
    """Print every budget and the verdict of all: a table on a terminal, else one line each."""
    if console.is_terminal:
        console.print(verdict_table(checks))
        for check in checks:
            if check.verdict is not Verdict.PASS:
                console.print(Text(f"{CHECK_NAMES.get(check.name, check.name)}: {check.note}", style="dim"))
        console.print(Text.assemble("verdict: ", (VERDICT_WORDS[verdict], VERDICT_STYLES[verdict])))
        return
    is_unicode = console.encoding.startswith("utf")
    for line in verdict_lines(checks, verdict):
        console.print(Text(line if is_unicode else _in_ascii(line)), soft_wrap=True)


def verdict_table(checks: Sequence[Check]) -> Table:
    """Return the table: name, measured, interval, limit, margin, verdict."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.add_column("budget")
    for column in ("measured", "95 % interval", "limit", "margin"):
        table.add_column(column, justify="right")
    table.add_column("verdict", no_wrap=True)
    for check in checks:
        table.add_row(*_cells(check), Text(VERDICT_WORDS[check.verdict], style=VERDICT_STYLES[check.verdict]))
    return table


def verdict_lines(checks: Sequence[Check], verdict: Verdict) -> list[str]:
    """Return one line a budget, and one for all, without colours or boxes."""
    lines = []
    for check in checks:
        name, measured, interval, limit, margin = _cells(check)
        known = f"{measured} (95 %: {interval})" if check.interval else measured
        reason = f"; {check.note}" if check.verdict is not Verdict.PASS else ""
        lines.append(f"{name}: {known}, limit {limit}, {margin}: {VERDICT_WORDS[check.verdict]}{reason}")
    return [*lines, f"verdict: {VERDICT_WORDS[verdict]}"]


def _cells(check: Check) -> tuple[str, str, str, str, str]:
    name = CHECK_NAMES.get(check.name, check.name)
    return name, measured_words(check), interval_words(check), limit_words(check), margin_words(check)


def _in_ascii(line: str) -> str:
    for sign, plain in {"≤": "<=", "≥": ">=", "✓ ": "", "✗ ": "", "? ": ""}.items():
        line = line.replace(sign, plain)
    return line.encode("ascii", "replace").decode("ascii")
