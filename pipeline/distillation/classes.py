"""What the losses on logits ask of the classes; refused before the first step, with the loss to take instead."""

from pipeline.distillation.loss import Given
from pipeline.errors import RecipeError


def expect_same_classes(kind: str, given: Given) -> None:
    """Check that the logits of student and teacher stand for as many classes.

    Raises:
        RecipeError: they do not.
    """
    known, wanted = given.num_teacher_classes, given.num_classes
    if known < wanted:
        instead = f'kind = "lwf" compares the {known} classes that the teacher knows, where they are the first ones'
    else:
        instead = "train the teacher's last layer on these classes, or take a loss on features"
    if known != wanted:
        raise RecipeError(
            f"losses: {kind}: expected a teacher of as many classes as the student, {wanted}; "
            f"got one of {known}: {instead}"
        )


def expect_three_classes(kind: str, given: Given, *, because: str) -> None:
    """Check that there are more than two classes.

    Raises:
        RecipeError: there are not; says `because`.
    """
    if given.num_classes < 3:
        raise RecipeError(
            f"losses: {kind}: expected at least 3 classes; got {given.num_classes}, where {because}: "
            'take kind = "kd" at temperature 1 to 4, or a loss on features'
        )
