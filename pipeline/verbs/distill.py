"""`edgeproof distill`: the first half of the chain alone, from one seed or several, without a device."""

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rich.text import Text

from pipeline.follow import is_follower
from pipeline.locks import held
from pipeline.recipe import load_recipe
from pipeline.run import open_run
from pipeline.seeds import SeedFigures, Spread, distill_seeds, spread_of
from pipeline.verbs.output import console_for_people, write_json


def run_distill(
    path: Path, *, overrides: tuple[str, ...], num_seeds: int, build: Path, loggers: tuple[str, ...], as_json: bool
) -> int:
    """Distill, print the accuracies of every seed with their mean and spread, and return the exit code."""
    recipe = load_recipe(path, overrides)
    console = console_for_people(as_json=as_json)
    run = open_run(console, build, loggers=loggers, run_name=recipe.name)
    with nullcontext() if is_follower() else held(build / recipe.name / "lock", f"distilling {recipe.name}", run.wait):
        teacher, figures = distill_seeds(recipe, num_seeds, run)
    spread = spread_of([each.test for each in figures])
    if is_follower():
        return 0
    if as_json:
        write_json(
            {
                "recipe": recipe.name,
                "teacher_test_accuracy": teacher,
                "seeds": [asdict(each) for each in figures],
                "test_accuracy": asdict(spread),
            }
        )
        return 0
    console.print(_table(figures))
    console.print(Text(_summary(recipe.name, teacher, spread)), soft_wrap=True)
    return 0


def _table(figures: list[SeedFigures]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("seed", "test", "validation", "best validation"):
        table.add_column(column, justify="right")
    for each in figures:
        accuracies = (each.test, each.validation, each.best_validation)
        table.add_row(str(each.seed), *(f"{accuracy:.2%}" for accuracy in accuracies))
    return table


def _summary(name: str, teacher: float, spread: Spread) -> str:
    deviation = f" ± {100 * spread.std:.2f} pp" if spread.std is not None else " (one seed tells no spread: --seeds 3)"
    return (
        f"{name}: student {spread.mean:.2%}{deviation} on the test images, last epoch, n = {spread.n}; "
        f"teacher {teacher:.2%}"
    )
