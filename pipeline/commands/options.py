"""What options of several verbs look like. Rule: imports nothing heavy."""

from pathlib import Path
from typing import Annotated

import typer

EXIT_CODES = (
    "Exit codes: 0 released, 1 error, 2 wrong usage or recipe, 3 a budget failed, 4 a device failed, "
    "5 undecided, 130 interrupted. With --debug an error shows its traceback."
)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a TOML file.", show_default=False)]
DeploymentName = Annotated[
    str | None,
    typer.Option("--target", "-t", metavar="DEPLOYMENT", help="Which deployment of the recipe; the first if left out."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="PATH=VALUE", help="Override one value of the recipe; may be repeated."),
]
Loggers = Annotated[
    list[str] | None,
    typer.Option("--log", metavar="LOGGER", help="Stream metrics to csv, tensorboard, mlflow or wandb; repeatable."),
]
Build = Annotated[Path, typer.Option("--build", metavar="DIR", help="Where results and the store are kept.")]
DevicesFile = Annotated[
    Path | None,
    typer.Option(
        "--devices", metavar="FILE", help="The inventory; else devices.toml here, and that of ~/.config/edgeproof/."
    ),
]
DeviceName = Annotated[str, typer.Option("--device", metavar="NAME", help="Where: local, or one of the inventory.")]
RuntimeName = Annotated[str, typer.Option("--target", "-t", metavar="RUNTIME", help="The runtime.", show_default=False)]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME=1x3x32x32", help="Shape of an input with open dimensions; repeatable."),
]
Threads = Annotated[int, typer.Option(min=1, max=1024, help="Threads of one inference.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to standard output, for machines.")]
