"""The recipe: one TOML file = one release. Rule: strict, frozen, validated once; stages get parts, never the whole.

`load_recipe` reports everything that is wrong with a file at once, in the order of the file.
"""

import json
import math
import re
import tomllib
from collections.abc import Sequence
from datetime import date, time
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, JsonValue, PrivateAttr, ValidationError, field_validator, model_validator

from pipeline.budget import DEFAULT_PROTOCOL, Budget, Protocol
from pipeline.distillation import AnyLoss
from pipeline.distillation.deep_inversion import DeepInversion
from pipeline.errors import RecipeError
from pipeline.explain import Problem, explain
from pipeline.models import AnyModel
from pipeline.overrides import Override, apply_overrides, parse_override
from pipeline.parts import RecipePart
from pipeline.precision.plan import Rest
from pipeline.release.licences import Expression, Licences, data_licence
from pipeline.release.settings import ReleaseSettings
from pipeline.schema import Step, schema_of
from pipeline.stages.export_onnx import Export
from pipeline.tasks import AnyTask
from pipeline.training.calibrate import Calibration
from pipeline.training.fake_quantize import Scales
from pipeline.training.int8_teacher import TeacherPrecision
from pipeline.training.schedule import TrainingSchedule
from targets import AnyTarget

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_VERSION = r"^[0-9]+\.[0-9]+\.[0-9]+([-+][0-9A-Za-z.+-]+)?$"


def _fit_for_a_folder(name: str) -> str:
    if not re.fullmatch(_NAME[1:-1], name):
        raise ValueError(
            'expected letters, digits, ".", "_" and "-", beginning with a letter or a digit, at most 64 of them '
            f"(it names a folder); got {json.dumps(name)}"
        )
    return name


Precision = Literal["auto", "int8", "int8_dynamic", "fp32", "bf16", "fp16"]
"""What a deployment ships, in one word."""

DYNAMIC_RESTS: tuple[Rest, ...] = ("int8_dynamic", "int8_dynamic_per_tensor")

Name = Annotated[str, AfterValidator(_fit_for_a_folder), Field(json_schema_extra={"pattern": _NAME})]


class Teacher(RecipePart):
    """The network that teaches: trained from nothing, or loaded from a checkpoint."""

    model: AnyModel
    """The teacher's network."""
    training: TrainingSchedule | None = None
    """How it is trained; left out where a checkpoint is given."""
    checkpoint: str | None = Field(default=None, examples=["teacher.safetensors"])
    """State dict (.pt, read with weights_only) or .safetensors, in the data folder or relative to the recipe."""
    num_classes: int | None = Field(default=None, ge=2)
    """Classes that the checkpoint knows, where they are only the first of the data's (see the loss lwf)."""

    @model_validator(mode="after")
    def _has_one_origin(self) -> "Teacher":
        if self.training and self.checkpoint:
            raise ValueError("expected either training or checkpoint; got both: leave one out")
        if not self.training and not self.checkpoint:
            raise ValueError(
                "expected training = { epochs = 30 } (to train it) or checkpoint = "
                '"teacher.safetensors" (to load it); got neither'
            )
        if self.training and self.num_classes:
            raise ValueError("num_classes: expected it beside checkpoint alone; one trained here learns all classes")
        return self


class Student(RecipePart):
    """The network that ships."""

    model: AnyModel
    """The student's network."""


class Assistant(RecipePart):
    """A network between teacher and student (Mirzadeh et al. 2019, arXiv 1902.03393), distilled by the same losses.

    With the student's own network this is a generation of born-again networks (Furlanello et al. 2018, arXiv
    1805.04770).
    """

    model: AnyModel
    """Its network."""
    training: TrainingSchedule | None = None
    """Length and speed of its training; the student's if left out."""


class Distillation(RecipePart):
    """How the student learns from the teacher, in float."""

    training: TrainingSchedule
    """Length and speed of the student's training."""
    losses: tuple[AnyLoss, ...] = Field(min_length=1)
    """What the student minimises: the weighted sum of these."""
    assistants: tuple[Assistant, ...] = ()
    """Learn first, each from the one before; the student learns from the last of them."""
    live_teacher: bool = False
    """Ask the teacher at every step instead of keeping what it said of each view on disk."""
    teacher_precision: TeacherPrecision = "bf16"
    """What teachers compute in. int8 is about twice as fast on a CPU with AVX-512 VNNI, and close to bf16: convolutions
    of 1 x 1 and 3 x 3 behind a ReLU, ranges from 256 training images."""
    data_free: DeepInversion | None = None
    """Learn from images made out of the teacher, not from the training images."""


class Quantization(RecipePart):
    """How the student is trained on in int8, while the teacher still teaches; `training.epochs = 0` only calibrates."""

    training: TrainingSchedule
    """Length and speed of the quantized training."""
    losses: tuple[AnyLoss, ...] = Field(min_length=1)
    """What the quantized student minimises."""
    calibration: Calibration = Calibration()
    """What the first ranges come from."""
    scales: Scales = "ema"
    """How grids move in training: `ema` follows the ranges of activations (a moving average over the first half of the
    epochs) and of weights; `learned` trains the scales with the weights (LSQ, Esser et al. 2020, arXiv 1902.08153)."""


class Deployment(RecipePart):
    """A name, a runtime, a device, and what must hold there."""

    name: Name = Field(examples=["cpu"])
    """Its name: `--target NAME` on the command line, a folder in the build."""
    target: AnyTarget = Field(discriminator="kind")
    """The runtime."""
    device: str = Field(default="local", min_length=1)
    """Where the model runs: `local`, or a name of the device inventory."""
    threads: int = Field(default=1, ge=1, le=1024)
    """Threads of one inference."""
    precision: Precision = "int8"
    """What ships: `auto`, the fastest on the device that holds the accuracy budget on the validation cut; `int8`, the
    student trained on the target's grid; `int8_dynamic`, the float student, whose linear layers find the ranges of
    their inputs at run time; or the float student in `fp32`, `bf16` or `fp16`, as the runtime and the processor have
    them."""
    float_layers: tuple[str, ...] = ()
    """Layers that stay in float where `int8` ships: names of the exported model, or their beginnings up to a dot or a
    slash (`blocks.3` keeps the whole block). `auto` finds them by itself."""
    rest: Rest | None = None
    """What layers compute in that are not on the grid: beside `int8` a float type (else `fp32`), or `int8_dynamic` or
    `int8_dynamic_per_tensor`, where linear layers among `float_layers` find the ranges of their inputs at run time;
    with `int8_dynamic`, `int8_dynamic_per_tensor` gives weights one scale instead of one for each output channel, which
    is a hair faster and less exact. `auto` finds it by itself."""
    profile: Protocol = DEFAULT_PROTOCOL
    """How latency is sampled."""
    budget: Budget = Field(examples=[{"latency": {"max_ms": 5.0}}])
    """What must hold on the device before anything is released."""

    @model_validator(mode="after")
    def _rest_fits(self) -> "Deployment":
        allowed = {"int8": get_args(Rest), "int8_dynamic": DYNAMIC_RESTS}.get(self.precision, ())
        if self.rest is not None and self.rest not in allowed:
            expected = f"one of {', '.join(allowed)} beside {self.precision}" if allowed else "it beside int8 alone"
            raise ValueError(f'rest: expected {expected}; got "{self.rest}"')
        return self


class Recipe(RecipePart):
    """One release: a student distilled from a teacher, quantized, and proved on every deployment."""

    name: Name = Field(examples=["my-model"])
    """Name of the release, and of its folder in the build."""
    version: str = Field(pattern=_VERSION, max_length=100, examples=["0.1.0"])
    """Semantic version of the release."""
    license: Expression = Field(examples=["Apache-2.0"])
    """SPDX licence of the released model."""
    task: AnyTask
    """What the model is for, and its data."""
    teacher: Teacher
    """Who teaches."""
    more_teachers: tuple[Teacher, ...] = ()
    """Teach beside it: the loss ensemble_kd matches the mean of all their probabilities."""
    student: Student
    """Who learns, and ships."""
    distillation: Distillation
    """How the student learns."""
    quantization: Quantization | None = None
    """How it becomes int8; needed where a deployment's precision is int8."""
    export: Export = Export()
    """How it is written to ONNX."""
    deployments: tuple[Deployment, ...] = Field(min_length=1)
    """Where it must run, within which budgets."""
    release: ReleaseSettings = ReleaseSettings()
    """What is said of the release, and how its packages for apps are made."""

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    def model_post_init(self, context: object) -> None:
        """Keep the folder that relative paths start from; it is no part of the recipe's content."""
        if isinstance(context, dict) and "folder" in context:
            self._folder = Path(context["folder"])

    @property
    def folder(self) -> Path:
        """Folder of the recipe's file: relative paths in it start here."""
        return self._folder

    def licences(self) -> Licences:
        """Return the licences of the model and of what it is made from, as far as anybody says them."""
        policy, teachers = self.release.licences, (self.teacher, *self.more_teachers)
        are_trained_here = all(each.training is not None for each in teachers)
        return Licences(
            model=self.license,
            teacher=policy.teacher or (self.license if are_trained_here else None),
            data=data_licence(self.task.data.kind, policy.data),
        )

    @field_validator("deployments")
    @classmethod
    def _names_differ(cls, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        names = [deployment.name.casefold() for deployment in deployments]
        for index, name in enumerate(names):
            if (first := names.index(name)) != index:
                raise ValueError(
                    f"expected a name of its own for each; got {json.dumps(deployments[index].name)} "
                    f"in deployments[{first}] and deployments[{index}]"
                )
        return deployments

    @model_validator(mode="after")
    def _assistants_see_what_teachers_see(self) -> "Recipe":
        if self.task.student_sees is not None and self.distillation.assistants:
            raise ValueError(
                "distillation.assistants: expected none where the student sees less than its teacher "
                "(task.student_sees): an assistant would teach from images that it never saw. Leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _packages_can_be_named(self) -> "Recipe":
        for index, platform in enumerate(self.release.platforms):
            if refusal := platform.refusal(self.name, self.version):
                raise ValueError(f"release.platforms[{index}]: {refusal}")
        return self

    @model_validator(mode="after")
    def _licences_are_allowed(self) -> "Recipe":
        if refusals := self.release.licences.refusals(self.licences()):
            raise ValueError(f"release.licences: {'; '.join(refusals)}: use something else, or change release.licences")
        return self

    @model_validator(mode="after")
    def _int8_has_quantization(self) -> "Recipe":
        int8 = [each.name for each in self.deployments if each.precision in ("auto", "int8")]
        if int8 and self.quantization is None:
            raise ValueError(
                f"quantization: missing: deployments {', '.join(int8)} may ship int8; "
                'add [quantization], or set their precision = "fp32"'
            )
        return self


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe, with `path=value` overrides laid over it first.

    Raises:
        RecipeError: everything that is wrong, one line each.
    """
    place = schema_of(Recipe)
    data, origins = apply_overrides(_read_toml(path), [parse_override(text) for text in overrides], place)
    problems = _not_json(data)
    if not problems:
        try:
            context = {"folder": path.absolute().parent}
            return Recipe.model_validate_json(json.dumps(data), context=context)
        except ValidationError as error:
            problems = explain(error.errors(include_url=False), data, place)
    raise RecipeError("\n".join(_line(problem, path, origins) for problem in problems))


def recipe_schema_json() -> str:
    """Return the JSON schema of a recipe, as docs/recipe.schema.json holds it."""
    schema = {"$schema": SCHEMA_ID, **Recipe.model_json_schema(), "title": "Edgeproof recipe"}
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _read_toml(path: Path) -> dict[str, JsonValue]:
    try:
        data: dict[str, JsonValue] = tomllib.loads(path.read_text("utf-8-sig"))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        what = "a folder" if path.is_dir() else "nothing there"
        raise RecipeError(f"{path}: expected a recipe (a TOML file); got {what}{_nearby(path)}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: expected TOML in UTF-8; byte {error.start} is not. Save it as UTF-8") from error
    except RecursionError as error:
        raise RecipeError(f"{path}: expected a recipe; got lists or tables nested too deeply") from error
    except tomllib.TOMLDecodeError as error:
        reason, _, place = str(error).rpartition(" (at ")
        where = place.rstrip(")") if reason else "somewhere"
        raise RecipeError(f"{path}: {where}: not TOML: {reason or error}") from error
    return data


def _nearby(path: Path) -> str:
    """Name recipes that may have been meant."""
    folders = dict.fromkeys([path, path.parent, path.parent / "recipes"])
    found = [str(file) for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.toml"))]
    recipes = [file for file in found if Path(file).name != "pyproject.toml"]
    if close := get_close_matches(str(path), recipes, n=1):
        return f' (did you mean "{close[0]}"?)'
    return f"; recipes nearby: {', '.join(recipes[:10])}" if recipes else "; `edgeproof init` writes one to start from"


def _not_json(value: JsonValue | date | time, path: tuple[Step, ...] = ()) -> list[Problem]:
    """List TOML values that no recipe can hold: dates, and numbers that are not finite."""
    if isinstance(value, dict):
        return [problem for key, item in value.items() for problem in _not_json(item, (*path, key))]
    if isinstance(value, list):
        return [problem for index, item in enumerate(value) for problem in _not_json(item, (*path, index))]
    if isinstance(value, date | time):
        return [Problem(path, "expected text, a number, a list or a table", f"got the date or time {value}: quote it")]
    if isinstance(value, float) and not math.isfinite(value):
        return [Problem(path, "expected a finite number", f"got {value}")]
    return []


def _line(problem: Problem, path: Path, origins: dict[tuple[Step, ...], Override]) -> str:
    for origin, override in origins.items():
        if problem.path[: len(origin)] == origin:
            return f"--set {override.text}: {problem}"
    return f"{path}: {problem}"
