"""`edgeproof keys`: who signs packages."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import EXIT_CODES, AsJson

app = typer.Typer(
    no_args_is_help=True,
    help="Make a key that signs packages.",
    epilog="Example: edgeproof keys new --out keys.\n\n" + EXIT_CODES,
)


@app.callback()
def keys() -> None:
    """Keep `new` a word of its own, although it is the only one."""


@app.command("new", epilog="Example: edgeproof keys new --out keys.\n\n" + EXIT_CODES)
def keys_new(
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Where the two halves go; nothing is overwritten.")
    ] = Path("~/.config/edgeproof"),
    as_json: AsJson = False,
) -> None:
    """Make an ed25519 key: signing_key.pem, which EDGEPROOF_KEY_PASSPHRASE encrypts, and signing_key.pub.pem."""
    from pipeline.verbs.keys import run_new_key

    raise typer.Exit(run_new_key(out.expanduser(), as_json=as_json))
