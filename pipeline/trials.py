"""The trainings of a recipe, tried before the first of them: who would learn what, and from whom."""

from pipeline.recipe import Deployment, Recipe
from pipeline.training.trial import Planned, try_losses


def check_losses(recipe: Recipe, deployment: Deployment | None = None) -> None:
    """Build every loss for untrained networks, before anything is trained.

    Raises:
        RecipeError: a loss does not fit its networks, or names a layer that is not there.
    """
    distillation, quantization = recipe.distillation, recipe.quantization
    teachers = tuple((teacher.model, teacher.num_classes) for teacher in (recipe.teacher, *recipe.more_teachers))
    trainings, taught_by = [], teachers
    for model in (*(each.model for each in distillation.assistants), recipe.student.model):
        trainings.append(Planned(model, taught_by, distillation.losses, distillation.training.epochs))
        taught_by = ((model, None),)
    if deployment is not None and deployment.precision == "int8" and quantization is not None:
        epochs, scheme = quantization.training.epochs, deployment.target.scheme
        trainings.append(Planned(recipe.student.model, teachers, quantization.losses, epochs, scheme))
    for training in trainings:
        try_losses(recipe.task, training)
