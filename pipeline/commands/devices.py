"""`edgeproof devices`: the inventory."""

from typing import Annotated

import typer

from pipeline.commands.options import EXIT_CODES, AsJson, DevicesFile

app = typer.Typer(
    no_args_is_help=True,
    help="List and add devices, and see whether they are ready to be deployed to.",
    epilog="Example: edgeproof devices check jetson.\n\n" + EXIT_CODES,
)


@app.command("list", epilog="Example: edgeproof devices list.\n\n" + EXIT_CODES)
def devices_list(devices: DevicesFile = None, as_json: AsJson = False) -> None:
    """List the devices of the inventory, how each is reached, and its groups."""
    from pipeline.verbs.devices import run_list

    raise typer.Exit(run_list(devices, as_json=as_json))


@app.command("add", epilog="Example: edgeproof devices add jetson user@192.168.1.20.\n\n" + EXIT_CODES)
def devices_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What recipes call it.", show_default=False)],
    address: Annotated[str, typer.Argument(metavar="USER@HOST", help="Who logs in where.", show_default=False)],
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Of its ssh server.")] = None,
    key: Annotated[str | None, typer.Option(metavar="FILE", help="Private key; else your agent's.")] = None,
    known_hosts: Annotated[
        str | None, typer.Option("--known-hosts", metavar="FILE", help="Known host keys; else yours.")
    ] = None,
    jump: Annotated[str | None, typer.Option(metavar="USER@HOST", help="Host to go through.")] = None,
    python: Annotated[str | None, typer.Option(metavar="PATH", help="Its Python; else python3.")] = None,
    work_folder: Annotated[
        str | None, typer.Option("--work-folder", metavar="DIR", help="Where our files lie there; else ~/.edgeproof.")
    ] = None,
    devices: DevicesFile = None,
) -> None:
    """Add a device to the inventory, which begins as devices.toml in this folder."""
    from pipeline.verbs.devices import AddRequest, run_add

    request = AddRequest(
        name=name,
        address=address,
        port=port,
        key=key,
        known_hosts=known_hosts,
        jump=jump,
        python=python,
        work_folder=work_folder,
        devices=devices,
    )
    raise typer.Exit(run_add(request))


@app.command("check", epilog="Example: edgeproof devices check jetson --json.\n\n" + EXIT_CODES)
def devices_check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Devices or groups; all if left out.")
    ] = None,
    devices: DevicesFile = None,
    as_json: AsJson = False,
) -> None:
    """Connect to devices and print what is there, and what would stop a deploy and how to mend it; then 4."""
    from pipeline.verbs.devices import run_check

    raise typer.Exit(run_check(tuple(names or ()), devices, as_json=as_json))


@app.command("clean", epilog="Example: edgeproof devices clean jetson.\n\n" + EXIT_CODES)
def devices_clean(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The device.", show_default=False)],
    devices: DevicesFile = None,
) -> None:
    """Remove from a device what is kept there between jobs: the runner and models; installed releases stay."""
    from pipeline.verbs.devices import run_clean

    raise typer.Exit(run_clean(name, devices))
