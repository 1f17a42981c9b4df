"""`edgeproof deploy` and `edgeproof plan`: a recipe, one of its deployments, and what to say of the outcome."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from pipeline import chain
from pipeline.errors import UsageError
from pipeline.fleet import FleetOptions
from pipeline.fleet_member import Leg
from pipeline.follow import require_one_process
from pipeline.inventory import choose_devices, is_pattern, load_inventory
from pipeline.measuring.verdict import Verdict
from pipeline.recipe import Deployment, Recipe, load_recipe
from pipeline.schema import nearest
from pipeline.verbs.fleet import run_fleet
from pipeline.verbs.output import EXIT_CODES, console_for_people, show_outcome, write_json
from targets.devices.inventory import Inventory

DEVICES = "devices"
"""Folder of a deployment that holds one for each of many devices."""


@dataclass(frozen=True)
class Selection:
    """Which deployment of which recipe, and where its results go."""

    recipe: Path
    target: str | None
    overrides: tuple[str, ...]
    build: Path
    devices: Path | None = None
    """The inventory's file, where one was named."""
    more_targets: tuple[str, ...] = ()
    """Further deployments, for the same command."""
    device_words: tuple[str, ...] = ()
    """Devices, groups and patterns in the place of the devices that the recipe names."""
    at_once: int | None = None
    """How many devices are driven at the same time; all if None."""
    skip_unreachable: bool = False
    """Of several devices, go on without those that do not answer."""


def run_deploy(
    selection: Selection, *, train_anyway: bool, accept_undecided: bool, loggers: tuple[str, ...], as_json: bool
) -> int:
    """Run the chain, print its verdict and return the exit code; that of many devices is the worst of them."""
    require_one_process("deploy")
    recipe, deployment = _load(selection)
    inventory = load_inventory(selection.devices)
    names = choose_devices(selection.device_words, inventory, "--device")
    if selection.more_targets or is_several(selection.device_words, inventory):
        return run_fleet(
            recipe,
            list_legs(recipe, (selection.target, *selection.more_targets), names, selection.build),
            inventory=inventory,
            build=selection.build,
            options=FleetOptions(
                train_anyway=train_anyway,
                accept_undecided=accept_undecided,
                skip_unreachable=selection.skip_unreachable,
                at_once=selection.at_once,
            ),
            loggers=loggers,
            as_json=as_json,
        )
    if names:
        deployment = deployment.model_copy(update={"device": names[0]})
    console = console_for_people(as_json=as_json)
    report = chain.deploy(
        recipe,
        deployment,
        build=selection.build,
        devices=inventory,
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


def is_several(words: Sequence[str], inventory: Inventory) -> bool:
    """Tell whether anything but one device's own name was typed: a list, a group or a pattern, of whatever length."""
    return len(words) > 1 or any(is_pattern(word) or word in inventory.groups for word in words)


def list_legs(recipe: Recipe, targets: Sequence[str | None], names: Sequence[str], build: Path) -> tuple[Leg, ...]:
    """Return each deployment on each device, with a folder of its own; without names, on the recipe's device."""
    chosen = [choose_deployment(recipe, target) for target in dict.fromkeys(targets)]
    legs = []
    for deployment in chosen:
        folder = build / recipe.name / deployment.name
        legs += [Leg(deployment.model_copy(update={"device": name}), folder / DEVICES / name) for name in names] or [
            Leg(deployment, folder)
        ]
    return tuple(legs)


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
