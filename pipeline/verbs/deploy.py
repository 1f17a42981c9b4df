"""`edgeproof deploy` and `edgeproof plan`: a recipe, one of its deployments, and what to say of the outcome."""

from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from pipeline import chain
from pipeline.errors import UsageError
from pipeline.follow import require_one_process
from pipeline.inventory import load_inventory
from pipeline.measuring.verdict import Verdict
from pipeline.recipe import Deployment, Recipe, load_recipe
from pipeline.schema import nearest
from pipeline.verbs.output import EXIT_CODES, console_for_people, show_outcome, write_json


@dataclass(frozen=True)
class Selection:
    """Which deployment of which recipe, and where its results go."""

    recipe: Path
    target: str | None
    overrides: tuple[str, ...]
    build: Path
    devices: Path | None = None
    """The inventory's file, where one was named."""


def run_deploy(
    selection: Selection, *, train_anyway: bool, accept_undecided: bool, loggers: tuple[str, ...], as_json: bool
) -> int:
    """Run the chain, print its verdict and return the exit code."""
    require_one_process("deploy")
    recipe, deployment = _load(selection)
    console = console_for_people(as_json=as_json)
    report = chain.deploy(
        recipe,
        deployment,
        build=selection.build,
        devices=load_inventory(selection.devices),
        train_anyway=train_anyway,
        accept_undecided=accept_undecided,
        loggers=loggers,
        console=console,
    )
    folder = selection.build / recipe.name / deployment.name
    is_accepted = accept_undecided and report.verdict is Verdict.UNDECIDED and not report.untrained
    show_outcome(console, report, folder)
    if as_json:
        write_json(report.model_dump(mode="json"))
    return 0 if is_accepted else EXIT_CODES[report.verdict]


def run_plan(selection: Selection, *, as_json: bool) -> int:
    """Print what a deploy would do, stage by stage."""
    recipe, deployment = _load(selection)
    stages = chain.plan(recipe, deployment, build=selection.build, devices=load_inventory(selection.devices))
    if as_json:
        write_json([asdict(stage) for stage in stages])
        return 0
    console = console_for_people(as_json=False)
    console.print(Text(f"{recipe.name} {recipe.version}, deployment {deployment.name}"))
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("stage", "state", "why"):
        table.add_column(column, overflow="fold")
    for stage in stages:
        table.add_row(Text(stage.name), Text(stage.state), Text(stage.reason))
    console.print(table)
    return 0


def choose_deployment(recipe: Recipe, name: str | None) -> Deployment:
    """Return the deployment called `name`, or the first.

    Raises:
        UsageError: the recipe has none of that name; lists those that it has.
    """
    if name is None:
        return recipe.deployments[0]
    for deployment in recipe.deployments:
        if deployment.name == name:
            return deployment
    names = tuple(deployment.name for deployment in recipe.deployments)
    raise UsageError(
        f"--target: expected a deployment of {recipe.name}: {', '.join(names)}; got {name}{nearest(name, names)}"
    )


def _load(selection: Selection) -> tuple[Recipe, Deployment]:
    recipe = load_recipe(selection.recipe, selection.overrides)
    return recipe, choose_deployment(recipe, selection.target)
