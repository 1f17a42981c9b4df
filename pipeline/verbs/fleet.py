"""`edgeproof deploy` to many devices: what became of each, in one table, and in one exit code."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import JsonValue
from rich.console import Console
from rich.text import Text

from pipeline.fleet import FleetOptions, deploy_fleet
from pipeline.fleet_member import Leg, Outcome, State
from pipeline.recipe import Recipe
from pipeline.report.table import VERDICT_STYLES
from pipeline.report.wording import second_words
from pipeline.verbs.compared import plain_table
from pipeline.verbs.output import EXIT_CODES, console_for_people, write_json
from targets.devices.inventory import Inventory

WORST_FIRST = (1, 2, 4, 3, 5, 0)
"""Exit codes: that of the whole is the first of these that any device has; one that was left out has none."""
STATE_WORDS: dict[State, str] = {
    "released": "released",
    "refused": "refused by budgets",
    "failed": "failed",
    "left out": "left out",
}


def run_fleet(
    recipe: Recipe,
    legs: Sequence[Leg],
    *,
    inventory: Inventory,
    build: Path,
    options: FleetOptions,
    loggers: tuple[str, ...],
    as_json: bool,
) -> int:
    """Deploy to all, print the table and return the worst exit code."""
    console, started = console_for_people(as_json=as_json), time.monotonic()
    outcomes = deploy_fleet(
        recipe, legs, build=build, console=console, devices=inventory, options=options, loggers=loggers
    )
    seconds = time.monotonic() - started
    show_outcomes(console, outcomes)
    console.print(Text(_summary(recipe, outcomes, seconds)), soft_wrap=True)
    if as_json:
        write_json(outcomes_as_json(recipe, outcomes, seconds))
    return exit_code_of(outcomes)


def exit_code_of(outcomes: Sequence[Outcome]) -> int:
    """Return the worst exit code of all that were not left out."""
    codes = {_exit_code(each) for each in outcomes if each.state != "left out"}
    return next(code for code in WORST_FIRST if code in codes)


def outcomes_as_json(recipe: Recipe, outcomes: Sequence[Outcome], seconds: float) -> JsonValue:
    """Return what machines read: the exit code of the whole, and a row for each."""
    rows: list[JsonValue] = [{**asdict(each), "exit_code": _exit_code(each)} for each in outcomes]
    head: dict[str, JsonValue] = {"recipe": recipe.name, "version": recipe.version}
    return {**head, "exit_code": exit_code_of(outcomes), "seconds": seconds, "devices": rows}


def show_outcomes(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Print a row for each, and below the table a line for each that has something to say."""
    has_several = len({each.deployment for each in outcomes}) > 1
    names = ("device", "deployment") if has_several else ("device",)
    table = plain_table(*names, "verdict", "p99", "accuracy", "time", "installed")
    for each in outcomes:
        table.add_row(*_names(each)[: len(names)], *_cells(each))
    console.print(table)
    for each in outcomes:
        if each.message:
            name = ", ".join(_names(each)[: len(names)])
            console.print(Text(f"{name}: {STATE_WORDS[each.state]}: {each.message}"), soft_wrap=True)


def _names(outcome: Outcome) -> tuple[str, str]:
    return outcome.device, outcome.deployment


def _exit_code(outcome: Outcome) -> int:
    if outcome.error_code is not None:
        return outcome.error_code
    assert outcome.verdict is not None
    return 0 if outcome.state == "released" else EXIT_CODES[outcome.verdict]


def _cells(outcome: Outcome) -> tuple[str | Text, ...]:
    verdict = Text(STATE_WORDS[outcome.state], style="bold red" if outcome.state == "failed" else "dim")
    if outcome.verdict is not None:
        verdict = Text(outcome.verdict.value.upper(), style=VERDICT_STYLES[outcome.verdict])
    return (
        verdict,
        "" if outcome.p99_ms is None else f"{outcome.p99_ms:.3g} ms",
        "" if outcome.accuracy is None else f"{outcome.accuracy:.2%}",
        second_words(outcome.seconds),
        outcome.installed or "",
    )


def _summary(recipe: Recipe, outcomes: Sequence[Outcome], seconds: float) -> str:
    counts = Counter(each.state for each in outcomes)
    words = ", ".join(f"{counts[state]} {said}" for state, said in STATE_WORDS.items() if counts[state])
    num_devices = len({each.device for each in outcomes})
    return f"{recipe.name} {recipe.version} on {num_devices} devices: {words}; {second_words(seconds)}"
