"""`edgeproof init`: a recipe and a model of the user's own to start from. Rule: never overwrites."""

import re
from importlib.resources import files
from pathlib import Path

from rich.text import Text

from pipeline.errors import UsageError
from pipeline.verbs.output import console_for_people
from targets import TARGETS

TEMPLATES = ("recipe.toml", "my_models.py")
DEFAULT_NAME = "my-model"


def run_init(folder: Path) -> int:
    """Write the templates into `folder` and say what to do next.

    Raises:
        UsageError: one of the files is there already; nothing is written then.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder; got a file")
    taken = [name for name in TEMPLATES if (folder / name).exists()]
    if taken:
        raise UsageError(f"{folder}: {', '.join(taken)} is there already; nothing was written: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name in TEMPLATES:
        text = (files("pipeline") / "init" / name).read_text("utf-8")
        (folder / name).write_text(_fill(text, folder), "utf-8")
    recipe = folder / TEMPLATES[0]
    lines = (
        f"wrote {', '.join(str(folder / name) for name in TEMPLATES)}",
        f"1. put your images into {folder / 'images'}/CLASS/*.jpg, one folder a class",
        f"2. set num_classes in {recipe} to the number of classes, and the budgets to what you need",
        f"3. edgeproof deploy {recipe}",
    )
    for line in lines:
        console_for_people(as_json=False).print(Text(line), soft_wrap=True)
    return 0


def _fill(text: str, folder: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.absolute().resolve().name).strip("-._")[:64]
    kinds = [target.kind for target in TARGETS]
    return (
        text.replace("@NAME@", name or DEFAULT_NAME)
        .replace("@RUNTIMES@", f"one of {', '.join(kinds)}")
        .replace("@RUNTIME@", kinds[0])
    )
