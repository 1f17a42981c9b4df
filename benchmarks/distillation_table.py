"""The table of distillation methods on CIFAR-10: accuracy of the last epoch, and time relative to plain KD.

    python benchmarks/distillation_table.py full     # no teacher, KD, KD + LS, DKD, DIST, SRD: all images, 20 epochs
    python benchmarks/distillation_table.py short    # every other method that applies: 10,000 images, 5 epochs
    python benchmarks/distillation_table.py views    # KD with fewer views in use, and more reuse: 10,000 images
    python benchmarks/distillation_table.py full --show    # what is finished so far; trains nothing

Every run is a stage of the store: interrupted, it goes on from its last epoch; finished, it is never run again. So the
table grows, and processes may fill it side by side (`--only KD,DKD`). EDGEPROOF_DATA names the data folder.
"""

import argparse
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.distillation_methods import FULL, SHORT, VIEWS, Method
from pipeline.chain import distill, teach
from pipeline.errors import DataError
from pipeline.models.trained import TrainedModel
from pipeline.recipe import Recipe, load_recipe
from pipeline.run import Missing, Plan, Run, open_plan, open_run
from pipeline.seeds import spread_of
from pipeline.stages.predict import predict

RECIPE = Path("recipes/cifar10.toml")
BUILD = Path("build/bench/distillation_table")


@dataclass(frozen=True)
class Group:
    """Which rows, on how much data, how long, from how many seeds."""

    methods: tuple[Method, ...]
    images: int | None
    epochs: int
    seeds: int


GROUPS = {"full": Group(FULL, None, 20, 2), "short": Group(SHORT, 10_000, 5, 1), "views": Group(VIEWS, 10_000, 20, 1)}


@dataclass(frozen=True)
class Finished:
    """One run: accuracies, and seconds of an epoch without what the teacher's columns took."""

    test: float
    best_validation: float
    epoch_seconds: float


def main() -> int:
    """Fill the rows asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--depth", type=int, default=8, help="of the student: 8 or 20")
    parser.add_argument("--only", help="names of rows, parted by commas")
    parser.add_argument("--seeds", type=int, help="how many; the group's own number if left out")
    parser.add_argument("--epochs", type=int, help="the group's own number if left out")
    parser.add_argument("--show", action="store_true", help="print what is finished; train nothing")
    options = parser.parse_args()
    group, console = GROUPS[options.group], Console(highlight=False)
    epochs, num_seeds = options.epochs or group.epochs, options.seeds or group.seeds
    wanted = {name.strip().casefold() for name in options.only.split(",")} if options.only else None
    if (base := recipe_with_data(console)) is None:
        return 0
    stages: Run | Plan = open_plan(BUILD) if options.show else open_run(console, BUILD)
    rows: dict[str, list[Finished]] = {}
    for seed in range(num_seeds):  # all rows once, then again: an unfinished table is still a table
        for method in group.methods:
            if wanted is None or method.name.casefold() in wanted:
                recipe = varied(base, method, depth=options.depth, images=group.images, epochs=epochs, seed=seed)
                if done := finished(recipe, stages):
                    rows.setdefault(method.name, []).append(done)
    title = f"ResNet-{options.depth}, {group.images or 'all'} training images, {epochs} epochs"
    publish(console, title, options.group, options.depth, rows)
    return 0


def recipe_with_data(console: Console) -> Recipe | None:
    """Return the recipe; None, saying why, where its data is not there."""
    recipe = load_recipe(RECIPE)
    try:
        recipe.task.data.fingerprint()
    except DataError as error:
        console.print(f"skipped: {error}")
        return None
    return recipe


def varied(base: Recipe, method: Method, *, depth: int, images: int | None, epochs: int, seed: int) -> Recipe:
    """Return the recipe with a row's losses and changes."""
    content: dict[str, Any] = base.model_dump(mode="json", exclude={"deployments": True, "quantization": True})
    content["deployments"] = [
        {"name": "none", "target": {"kind": "null"}, "precision": "fp32", "budget": {"latency": {"max_ms": 1e6}}}
    ]
    content["task"]["data"]["train_images"] = images
    content["task"]["views"] |= method.views or {}
    content["student"]["model"]["depth"] = depth
    training = {**content["distillation"]["training"], "epochs": epochs, "seed": seed, **(method.training or {})}
    changes = dict(method.distillation or {})
    if "assistants" in changes:
        student = content["student"]["model"]
        changes["assistants"] = [
            {"model": student if each["model"] == "student" else each["model"]} for each in changes["assistants"]
        ]
    content["distillation"] = {"training": training, "losses": list(method.losses), **changes}
    content["more_teachers"] = list(method.more_teachers)
    return Recipe.model_validate_json(json.dumps(content), context={"folder": RECIPE.parent.absolute()})


def finished(recipe: Recipe, stages: Run | Plan) -> Finished | None:
    """Run what is not there yet, or only look; None where a plan finds it unfinished."""
    student = distill(recipe, teach(recipe, stages), None, stages)
    if isinstance(student.checkpoint, Missing):
        return None
    predictions = stages.stage(predict, recipe.task, student)
    if isinstance(predictions, Missing):
        return None
    logits = safetensors.numpy.load_file(predictions.path)["logits"]
    correct = recipe.task.correct(logits, recipe.task.load().test.labels)
    return Finished(float(np.mean(correct)), student.checkpoint.best_validation_accuracy, epoch_seconds(student))


def epoch_seconds(student: TrainedModel) -> float:
    """Return the median time of an epoch, without the time in which the teacher's columns were filled or read."""
    lines = (student.checkpoint.path.parent / "metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    return statistics.median(epoch["seconds"] - epoch["teacher_seconds"] for epoch in epochs)


def publish(console: Console, title: str, group: str, depth: int, rows: dict[str, list[Finished]]) -> None:
    """Print the table and write it, as text and JSON."""
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("method")
    for column in ("test, last epoch", "spread", "n", "best validation", "s / epoch", "time / KD"):
        table.add_column(column, justify="right")
    kd = statistics.median(each.epoch_seconds for each in rows["KD"]) if "KD" in rows else None
    for name, runs in rows.items():
        spread, seconds = spread_of([run.test for run in runs]), statistics.median(run.epoch_seconds for run in runs)
        table.add_row(
            name,
            f"{spread.mean:.2%}",
            "" if spread.std is None else f"±{100 * spread.std:.2f}",
            str(spread.n),
            f"{statistics.fmean(run.best_validation for run in runs):.2%}",
            f"{seconds:.1f}",
            "" if kd is None else f"{seconds / kd:.2f}",
        )
    console.print(table)
    console.print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; teacher ResNet-56: 88.99 % on these images. "
        "Times count only where nothing else ran.",
        style="dim",
    )
    BUILD.mkdir(parents=True, exist_ok=True)
    figures = {name: [vars(run) for run in runs] for name, runs in rows.items()}
    (BUILD / f"{group}-resnet{depth}.json").write_text(json.dumps({"title": title, "rows": figures}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
