"""Pairs of layers: which layer of the student learns from which of the teacher.

Rule: whatever does not fit is refused before the first step, with both layers and both shapes named.
"""

from dataclasses import dataclass

from pipeline.distillation.loss import INPUT, Given, Needs
from pipeline.errors import RecipeError

MAP = "a map [C, H, W]"
MAP_OR_VECTOR = "a map [C, H, W] or a vector [D]"
_DIMENSIONS = {MAP: (3,), MAP_OR_VECTOR: (1, 3)}


@dataclass(frozen=True)
class Pair:
    """One layer of the student, and the layer of the teacher that it learns from; shapes without the batch."""

    student_layer: str
    teacher_layer: str
    student_shape: tuple[int, ...]
    teacher_shape: tuple[int, ...]

    @property
    def is_before_activation(self) -> bool:
        """Whether the teacher's feature is what enters its layer, and so may be negative."""
        return self.teacher_layer.endswith(INPUT)

    def refusal(self, kind: str, *, expected: str, do: str) -> RecipeError:
        """Return the error that says why the loss of this kind cannot use the pair, and what to do."""
        return RecipeError(
            f"losses: {kind}: expected {expected}; got the student's {self.student_layer!r} {list(self.student_shape)} "
            f"beside the teacher's {self.teacher_layer!r} {list(self.teacher_shape)}: {do}"
        )


def pairs_of(kind: str, needs: Needs, given: Given, *, expected: str = MAP) -> tuple[Pair, ...]:
    """Return the pairs of a loss, in its order; `expected` is MAP or MAP_OR_VECTOR.

    Raises:
        RecipeError: no layers, other numbers of layers of the two networks, or a feature of other dimensions.
    """
    student, teacher = needs.student_layers, needs.teacher_layers
    if not student or len(student) != len(teacher):
        raise RecipeError(
            f"losses: {kind}: expected as many student_layers as teacher_layers, at least one of each; "
            f"got {list(student)} and {list(teacher)}: name the teacher's layer for each of the student's, in one order"
        )
    pairs = tuple(
        Pair(*four) for four in zip(student, teacher, given.student_shapes, given.teacher_shapes, strict=True)
    )
    for pair in pairs:
        if {len(pair.student_shape), len(pair.teacher_shape)} - set(_DIMENSIONS[expected]):
            raise pair.refusal(kind, expected=f"{expected} of both", do="name other student_layers or teacher_layers")
    return pairs
