"""Verbs about what was deployed before."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import EXIT_CODES, AsJson, Build, DevicesFile

app = typer.Typer()


@app.command(epilog="Example: edgeproof rollback local --list.\n\n" + EXIT_CODES)
def rollback(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="The device, as deployments name it.")],
    release: Annotated[
        str | None,
        typer.Argument(
            metavar="RELEASE", help="Which of its releases, as RECIPE-DEPLOYMENT; the only one if left out."
        ),
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="VERSION", help="The version to go to; what the current one replaced if left out."
        ),
    ] = "",
    show: Annotated[bool, typer.Option("--list", help="List what is installed instead.")] = False,
    devices: DevicesFile = None,
    build: Build = Path("build"),
    as_json: AsJson = False,
) -> None:
    """Make the release before the current one current again on a device, once it answers there as it did."""
    from pipeline.verbs.rollback import run_list, run_rollback

    if show:
        raise typer.Exit(run_list(device, devices, build=build, as_json=as_json))
    raise typer.Exit(run_rollback(device, release, version=to, devices=devices, build=build, as_json=as_json))


@app.command(epilog="Example: edgeproof history --recipe digits --last 10.\n\n" + EXIT_CODES)
def history(
    recipe: Annotated[str | None, typer.Option("--recipe", metavar="NAME", help="Of this recipe alone.")] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", metavar="DEPLOYMENT", help="Of this one alone.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="How many, counted from the newest.")] = 20,
    build: Build = Path("build"),
    as_json: AsJson = False,
) -> None:
    """List the profiles that deploys took, and what changed from one to the next under the same conditions."""
    from pipeline.verbs.history import run_history

    raise typer.Exit(run_history(build, recipe, target, last=last, as_json=as_json))


@app.command(epilog="Example: edgeproof compare 3 build/digits/cpu.\n\n" + EXIT_CODES)
def compare(
    before: Annotated[
        str, typer.Argument(metavar="BEFORE", help="A number of the history, a report.json, or its folder.")
    ],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="Another.")],
    anyway: Annotated[bool, typer.Option("--anyway", help="Compare even if conditions differ; says how.")] = False,
    build: Build = Path("build"),
    as_json: AsJson = False,
) -> None:
    """Compare two profiles with intervals; exit code 3 where something became worse."""
    from pipeline.verbs.history import run_compare

    raise typer.Exit(run_compare(before, after, build=build, anyway=anyway, as_json=as_json))
