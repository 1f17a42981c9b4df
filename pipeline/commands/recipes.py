"""Verbs about a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import (
    EXIT_CODES,
    AsJson,
    Build,
    DeploymentName,
    DevicesFile,
    Loggers,
    Overrides,
    RecipePath,
)

app = typer.Typer()


@app.command(
    epilog="Example: edgeproof deploy recipes/digits.toml --target cpu "
    "--set deployments.cpu.budget.latency.max_ms=5. To many devices at the same time: --device cam01,cam02, "
    "--device GROUP or --device 'cam*'; the exit code is then the worst of them.\n\n" + EXIT_CODES
)
def deploy(
    recipe: RecipePath,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "-t", metavar="DEPLOYMENT", help="Which deployment; the first if left out; may be repeated."
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device", metavar="NAME,...", help="Devices, groups or patterns in the place of the recipe's device."
        ),
    ] = None,
    overrides: Overrides = None,
    train_anyway: Annotated[
        bool, typer.Option("--train-anyway", help="Train although the untrained student already misses a budget.")
    ] = False,
    accept_undecided: Annotated[
        bool, typer.Option("--accept-undecided", help="Release although a budget is undecided; the release records it.")
    ] = False,
    at_once: Annotated[
        int | None, typer.Option("--at-once", min=1, help="Drive so many devices at the same time; all if left out.")
    ] = None,
    skip_unreachable: Annotated[
        bool, typer.Option("--skip-unreachable", help="Of many devices, go on without those that do not answer.")
    ] = False,
    loggers: Loggers = None,
    devices: DevicesFile = None,
    build: Build = Path("build"),
    as_json: AsJson = False,
) -> None:
    """Train, quantize, compile and measure a student on its device or on many; release it if every budget holds."""
    from pipeline.verbs.deploy import Selection, run_deploy

    selection = Selection(
        recipe,
        targets[0] if targets else None,
        tuple(overrides or ()),
        build,
        devices,
        more_targets=tuple(targets[1:]) if targets else (),
        device_words=tuple(word for text in device or () for word in text.split(",") if word),
        at_once=at_once,
        skip_unreachable=skip_unreachable,
    )
    code = run_deploy(
        selection,
        train_anyway=train_anyway,
        accept_undecided=accept_undecided,
        loggers=tuple(loggers or ()),
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command(epilog="Example: edgeproof plan recipes/digits.toml.\n\n" + EXIT_CODES)
def plan(
    recipe: RecipePath,
    target: DeploymentName = None,
    overrides: Overrides = None,
    devices: DevicesFile = None,
    build: Build = Path("build"),
    as_json: AsJson = False,
) -> None:
    """Show what a deploy would run, what is kept from before, and why something is stale."""
    from pipeline.verbs.deploy import Selection, run_plan

    raise typer.Exit(run_plan(Selection(recipe, target, tuple(overrides or ()), build, devices), as_json=as_json))


@app.command(epilog="Example: edgeproof distill recipes/digits.toml --seeds 3 --log tensorboard.\n\n" + EXIT_CODES)
def distill(
    recipe: RecipePath,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Train so many students that differ by seed alone.")] = 1,
    overrides: Overrides = None,
    loggers: Loggers = None,
    build: Build = Path("build"),
    as_json: AsJson = False,
) -> None:
    """Distill the student alone, without a device: accuracies of every seed, their mean and spread."""
    from pipeline.verbs.distill import run_distill

    raise typer.Exit(
        run_distill(
            recipe,
            overrides=tuple(overrides or ()),
            num_seeds=seeds,
            build=build,
            loggers=tuple(loggers or ()),
            as_json=as_json,
        )
    )


@app.command(epilog="Example: edgeproof methods dkd.\n\n" + EXIT_CODES)
def methods(
    kind: Annotated[
        str | None, typer.Argument(metavar="[KIND]", help="Show this one with all its settings.", show_default=False)
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option("--markdown", metavar="PAGE.md", help="Write the table anew into a page that has its markers."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the distillation losses that a recipe can name: family, formula, source, cost, when to use each."""
    from pipeline.verbs.methods import run_methods

    raise typer.Exit(run_methods(kind, page=page, as_json=as_json))


@app.command(epilog="Example: edgeproof init my-model && cd my-model && edgeproof deploy recipe.toml.\n\n" + EXIT_CODES)
def init(folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where to write.")] = Path(".")) -> None:
    """Write a commented recipe for your own model and images to start from; overwrites nothing."""
    from pipeline.verbs.init import run_init

    raise typer.Exit(run_init(folder))
