"""Several processes of one training, under torchrun: the first keeps results, the others only take part.

Rule: a follower writes nothing to the store; what it computes counts through the gradients that it shares.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from pipeline.errors import UsageError
from pipeline.store import Store

Inputs = ParamSpec("Inputs")
Artifact = TypeVar("Artifact")
POLL_SECONDS = 0.2


def is_follower() -> bool:
    """Tell whether this process is one of several, and not the first."""
    return int(os.environ.get("RANK", "0")) > 0


def require_one_process(verb: str) -> None:
    """Refuse a verb that measures or releases to run in several processes.

    Raises:
        UsageError: torchrun started more than one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            f"{verb}: expected one process, since it measures; got {os.environ['WORLD_SIZE']} from torchrun. Train "
            "with `torchrun --nproc-per-node N -m pipeline distill RECIPE`; then this finds the student in the store"
        )


def announce(root: Path, key: str) -> None:
    """Tell the other processes of this training, if there are any, that the result of this key is being computed."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        path = _announcement(root, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def withdraw(root: Path, key: str) -> None:
    """Take an announcement back: the result is there."""
    _announcement(root, key).unlink(missing_ok=True)


def _announcement(root: Path, key: str) -> Path:
    run = "-".join(os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT"))
    return root / "announced" / f"{key}-{run}"


def follow(
    store: Store,
    stage: Callable[Concatenate[Path, Inputs], Artifact],
    /,
    *args: Inputs.args,
    **kwargs: Inputs.kwargs,
) -> Artifact:
    """Return the stage's artifact: from the store, or when the first process has put it there; take part until then.

    It takes part only once the first process has announced that it computes this very result: another run may be at
    it, and then there is nothing to take part in. A training that was interrupted goes on from a copy of what the first
    process goes on from.
    """
    while (found := store.lookup(stage, *args, **kwargs)).artifact is None:
        if _announcement(store.root, found.key).exists():
            break
        time.sleep(POLL_SECONDS)
    else:
        return found.artifact
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "stage"
        unfinished = store.unfinished(stage, *args, **kwargs)
        if unfinished.is_dir():
            shutil.copytree(unfinished, folder)
        else:
            folder.mkdir()
        stage(folder, *args, **kwargs)
    while (found := store.lookup(stage, *args, **kwargs)).artifact is None:
        time.sleep(POLL_SECONDS)
    return found.artifact
