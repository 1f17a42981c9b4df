"""`edgeproof diff`: what an application team gets when it takes another release."""

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue, TypeAdapter
from rich.console import Console
from rich.text import Text

from pipeline.measuring.verdict import Verdict
from pipeline.release.compare import Changed, Comparison, OperatorChange, compare_releases
from pipeline.release.verify import open_release
from pipeline.verbs.compared import compared_table, plain_table
from pipeline.verbs.output import EXIT_CODES, console_for_people, write_json

INTERVAL = "interval (95 %, p99: 90 %)"
LONGEST = 60
"""Of a value that is printed; --json has all of it."""
_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
_COMPARISON = TypeAdapter(Comparison)


def run_diff(before: Path, after: Path, *, as_json: bool) -> int:
    """Print what differs between two releases or packages; 3 where a figure became worse or an app would break.

    Raises:
        EdgeproofError: one of them is not as it was packed.
    """
    found = compare_releases(open_release(before), open_release(after))
    if as_json:
        write_json(_as_json(found, before, after))
    else:
        _show(console_for_people(as_json=False), found, before, after)
    return EXIT_CODES[Verdict.FAIL] if found.is_worse else 0


def _show(console: Console, found: Comparison, before: Path, after: Path) -> None:
    for line in (f"before: {before}", f"after:  {after}"):
        console.print(Text(line), soft_wrap=True)
    console.print(compared_table(found.figures, INTERVAL))
    for reason in found.conditions:
        console.print(Text(f"figures of the device are not compared: {reason}", style="yellow"), soft_wrap=True)
    _show_breaking(console, found.breaking)
    for title, changes in (("licences", found.licences), ("release", found.facts), ("files", found.files)):
        _show_changes(console, title, changes)
    _show_operators(console, found.operators)


def _show_breaking(console: Console, breaking: Sequence[Changed]) -> None:
    if not breaking:
        console.print(Text("interface: as it was: labels, tensors and processing", style="dim"))
        return
    console.print(Text("interface: what would break an app that took the one before", style="bold red"))
    for each in breaking:
        console.print(Text(f"  {_words(each)}"), soft_wrap=True)


def _show_changes(console: Console, title: str, changes: Sequence[Changed]) -> None:
    if not changes:
        console.print(Text(f"{title}: as before", style="dim"))
        return
    console.print(Text(f"{title}:"))
    for each in changes:
        console.print(Text(f"  {_words(each)}"), soft_wrap=True)


def _show_operators(console: Console, operators: Sequence[OperatorChange] | None) -> None:
    if operators is None:
        console.print(Text("operators: unknown: a report of another version of edgeproof", style="yellow"))
    elif not operators:
        console.print(Text("operators: as before, by type and precision", style="dim"))
    else:
        table = plain_table("operator", "precision", "before", "after")
        for each in operators:
            table.add_row(each.op_type, each.precision, str(each.before), str(each.after))
        console.print(table)


def _words(changed: Changed) -> str:
    return f"{changed.what}: {_brief(changed.before)} -> {_brief(changed.after)}"


def _brief(value: str | None) -> str:
    if value is None:
        return "none"
    value = _DIGEST.sub(lambda found: found[0][:12], value)
    return value if len(value) <= LONGEST else f"{value[: LONGEST - 3]}..."


def _as_json(found: Comparison, before: Path, after: Path) -> JsonValue:
    table: dict[str, JsonValue] = _COMPARISON.dump_python(found, mode="json")
    return {"before": str(before), "after": str(after), "is_worse": found.is_worse, **table}
