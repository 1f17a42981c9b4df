"""What a recipe says of its release in words: its model card, and the licences of all that it is made from.

Rule: no path of the host gets in; of the user's own files their names alone.
"""

from collections.abc import Callable, Iterator
from pathlib import PurePath

from pydantic import BaseModel

from pipeline.errors import RecipeError
from pipeline.recipe import Deployment, Quantization, Recipe, Teacher
from pipeline.release.card import Card, DataFacts, NetworkFacts
from pipeline.release.licences import DISTRIBUTIONS, Licences, distribution_licence, unknown
from pipeline.training.schedule import TrainingSchedule


def describe_card(recipe: Recipe, deployment: Deployment, *, parameters: int | None = None) -> Card:
    """Return the words of the model card; `parameters` are the student's, where somebody counted.

    Raises:
        DataError: as the data raises.
    """
    words, distillation = recipe.release, recipe.distillation
    return Card(
        description=words.description,
        intended_use=words.intended_use,
        limitations=words.limitations,
        task=recipe.task.kind,
        data=_data(recipe),
        teachers=tuple(_teacher(each) for each in (recipe.teacher, *recipe.more_teachers)),
        student=NetworkFacts(
            architecture=part_words(recipe.student.model),
            origin=f"distilled for {_schedule_words(distillation.training)}{_through_words(recipe)}",
            parameters=parameters,
        ),
        losses=tuple(part_words(loss) for loss in distillation.losses),
        quantization=_quantization(recipe.quantization) if deployment.precision == "int8" else None,
    )


def find_licences(recipe: Recipe, deployment: Deployment) -> Licences:
    """Return the licences of model, teacher, data and runtime, as far as anybody says them."""
    runtime = DISTRIBUTIONS[deployment.target.kind]
    return recipe.licences().model_copy(update={"dependencies": {runtime: distribution_licence(runtime)}})


def check_licences(recipe: Recipe, deployment: Deployment, say: Callable[[str], None]) -> None:
    """Refuse a runtime whose licence the recipe forbids, and say what nobody knows the licence of.

    Raises:
        RecipeError: the recipe forbids it, or does not allow it. What it says itself was refused when it was read.
    """
    licences = find_licences(recipe, deployment)
    if refusals := recipe.release.licences.refusals(licences):
        raise RecipeError(f"release.licences: {'; '.join(refusals)}: use something else, or change release.licences")
    if names := unknown(licences):
        say(f"licences: unknown of {', '.join(names)}; the release will say so (to say them: release.licences)")


def part_words(part: BaseModel) -> str:
    """Return a part of the recipe as `kind (setting value, ...)`: what was said of it, and is one word or number."""
    kind = _own_name(str(getattr(part, "kind", type(part).__name__)))
    said = [f"{name.replace('_', ' ')} {_word(value)}" for name, value in _settings(part)]
    return f"{kind} ({', '.join(said)})" if said else kind


def _settings(part: BaseModel) -> Iterator[tuple[str, str | int | float]]:
    for name in type(part).model_fields:
        value = getattr(part, name)
        if name != "kind" and name in part.model_fields_set and isinstance(value, str | int | float):
            yield name, value


def _word(value: str | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return PurePath(value).name or value if isinstance(value, str) else f"{value:g}"


def _own_name(kind: str) -> str:
    """Return the name of the user's own file without its folders."""
    return PurePath(kind).name if ".py:" in kind else kind


def _data(recipe: Recipe) -> DataFacts:
    dataset = recipe.task.for_student().load()
    height, width, channels = dataset.train.images.shape[1:]
    return DataFacts(
        name=part_words(recipe.task.data),
        train_images=len(dataset.train),
        validation_images=len(dataset.validation),
        test_images=len(dataset.test),
        image_shape=(height, width, channels),
        classes=len(dataset.classes),
    )


def _teacher(teacher: Teacher) -> NetworkFacts:
    if teacher.training is not None:
        origin = f"trained from nothing for {_schedule_words(teacher.training)}"
    else:
        origin = f"loaded from {PurePath(teacher.checkpoint or '').name}"
    return NetworkFacts(architecture=part_words(teacher.model), origin=origin)


def _through_words(recipe: Recipe) -> str:
    """Return what stood between teacher and student: assistants, and images that nobody took."""
    assistants = [part_words(each.model) for each in recipe.distillation.assistants]
    through = f", through {', then '.join(assistants)}" if assistants else ""
    synthetic = ", from images that were synthesized out of the teacher" if recipe.distillation.data_free else ""
    return through + synthetic


def _quantization(quantization: Quantization | None) -> str | None:
    if quantization is None:
        return None
    training, calibration = quantization.training, quantization.calibration
    ranges = f"ranges by {calibration.method.kind} of {calibration.samples} validation images"
    if training.epochs == 0:
        return f"calibrated, not trained; {ranges}"
    losses = ", ".join(part_words(loss) for loss in quantization.losses)
    return f"trained on in int8 for {_schedule_words(training)}, by {losses}; scales {quantization.scales}; {ranges}"


def _schedule_words(training: TrainingSchedule) -> str:
    epochs = f"{training.epochs} epoch{'' if training.epochs == 1 else 's'}"
    return f"{epochs} in batches of {training.batch_size} by {training.optimizer}, seed {training.seed}"
