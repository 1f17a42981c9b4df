"""The command line: its verbs, exit codes and last words. Rule: imports nothing heavy; a verb imports its work."""

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from pipeline.commands import devices, files, keys, recipes, releases, store
from pipeline.commands.options import EXIT_CODES

if TYPE_CHECKING:
    from targets.errors import EdgeproofError

INTERRUPTED = (
    "edgeproof: interrupted. Finished stages and the last finished epoch are kept: the same command goes on from there."
)
_DISK_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space (`edgeproof store show`, `edgeproof store prune`), then go on",
    errno.EDQUOT: "your disk quota is used up: free some space (`edgeproof store prune`), then go on",
    errno.EROFS: "the file system is read-only: name a folder that can be written, with --build",
    errno.EACCES: "permission denied: check who owns it, or name another folder with --build",
    errno.EPERM: "not permitted: check who owns it, or name another folder with --build",
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Takes a trained vision model to the edge and proves that it arrived.",
    epilog="Start with: edgeproof deploy recipes/digits.toml.\n\n" + EXIT_CODES,
)
for verbs in (recipes, files, releases):
    app.add_typer(verbs.app)
app.add_typer(devices.app, name="devices")
app.add_typer(keys.app, name="keys")
app.add_typer(store.app, name="store")


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; the one place where errors become messages."""
    is_debug = "--debug" in arguments
    try:
        return _invoke([argument for argument in arguments if argument != "--debug"])
    except BrokenPipeError:  # `edgeproof ... | head`: who read has gone, and nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        _tell(_in_words(error), is_debug)
        return 1
    except _edgeproof_error() as error:
        _tell(str(error), is_debug)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort: a defect of ours, or of a file that the recipe names
        _tell(_unexpected(error), is_debug)
        return 1


def _invoke(arguments: list[str]) -> int:
    """Run typer, which always ends by SystemExit: with a verb's code, 2 after wrong usage, 130 after Ctrl-C."""
    try:
        typer.main.get_command(app)(arguments, prog_name="edgeproof")
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 0
        if code == 130:
            typer.echo(INTERRUPTED, err=True)
        sys.stdout.flush()
        return code
    return 0


def _edgeproof_error() -> "type[EdgeproofError]":
    """Import the exception only when one was raised: its package needs NumPy, and `--help` should not."""
    from targets.errors import EdgeproofError

    return EdgeproofError


def _unexpected(error: Exception) -> str:
    """Say where an error came from that nobody expected: the last line of code that is no library's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and "<" not in frame.filename] or frames
    reason = (str(error).strip().splitlines() or [""])[0]
    return (
        f"{own[-1].filename}:{own[-1].lineno}: expected no error here; got {type(error).__name__}: {reason}. Mend it "
        "if the file is yours; otherwise it is a defect of edgeproof. --debug shows the traceback"
    )


def _tell(message: str, is_debug: bool) -> None:
    if is_debug:
        traceback.print_exc()
    typer.echo(f"edgeproof: {message}", err=True)


def _in_words(error: OSError) -> str:
    where = error.filename or os.getcwd()
    return f"{where}: {_DISK_ADVICE.get(error.errno or 0, error.strerror or str(error))}"
