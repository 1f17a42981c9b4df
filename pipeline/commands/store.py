"""`edgeproof store`: what is kept between runs."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import EXIT_CODES, AsJson, Build

app = typer.Typer(
    no_args_is_help=True,
    help="Show, prune or clear the results that are kept between runs.",
    epilog="Example: edgeproof store prune --days 30.\n\n" + EXIT_CODES,
)


@app.command("show", epilog="Example: edgeproof store show.\n\n" + EXIT_CODES)
def store_show(build: Build = Path("build"), as_json: AsJson = False) -> None:
    """List what is kept: stage, key, size, age and last use."""
    from pipeline.verbs.store import run_show

    raise typer.Exit(run_show(build, as_json=as_json))


@app.command("prune", epilog="Example: edgeproof store prune --days 30.\n\n" + EXIT_CODES)
def store_prune(
    build: Build = Path("build"),
    days: Annotated[int, typer.Option(min=0, help="Remove what was not used for so many days.")] = 30,
) -> None:
    """Remove results that were not used for some days, interrupted runs and damaged entries."""
    from pipeline.verbs.store import run_prune

    raise typer.Exit(run_prune(build, days))


@app.command("clear", epilog="Example: edgeproof store clear.\n\n" + EXIT_CODES)
def store_clear(build: Build = Path("build")) -> None:
    """Remove everything that is kept; the next deploy trains anew. Reports and releases stay."""
    from pipeline.verbs.store import run_clear

    raise typer.Exit(run_clear(build))
