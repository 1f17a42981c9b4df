import pytest
import torch
from feature_batches import Shape, batch_of, given_of

from pipeline.distillation.self_distillation import BeYourOwnTeacher
from pipeline.errors import RecipeError

IGNORED = (1,)


@pytest.mark.parametrize(
    ("shape", "last"),
    [((16, 32, 32), (64, 8, 8)), ((32, 16, 16), (64, 8, 8)), ((8, 7, 5), (8, 4, 5)), ((4, 9, 9), (6, 2, 2))],
)
def test_an_exit_brings_a_map_to_the_shape_of_the_last_stage(shape: Shape, last: Shape) -> None:
    loss = BeYourOwnTeacher(student_layers=("stage:1", "stage:last"))
    term = loss.build(given_of((shape, IGNORED), (last, IGNORED)))
    assert term.get_submodule("exits.0.bottleneck")(torch.randn(2, *shape)).shape == (2, *last)


@pytest.mark.parametrize("shape", [(16, 4, 4), (16, 15, 12), (16,)])
def test_a_stage_that_cannot_be_halved_down_to_the_last_is_refused(shape: Shape) -> None:
    with pytest.raises(RecipeError, match=r"'stage:last' \[64, 8, 8\]; got 'stage:1' \[16.*from shallow to deep"):
        BeYourOwnTeacher(student_layers=("stage:1", "stage:last")).build(
            given_of((shape, IGNORED), ((64, 8, 8), IGNORED))
        )


def test_one_stage_has_nobody_to_teach() -> None:
    with pytest.raises(RecipeError, match=r"byot: student_layers: expected at least two stages"):
        BeYourOwnTeacher(student_layers=("stage:last",)).build(given_of(((64, 8, 8), IGNORED)))


def test_the_deepest_exit_teaches_and_does_not_learn() -> None:
    pairs = [(torch.randn(4, *shape), torch.zeros(4, 1)) for shape in ((2, 8, 8), (3, 4, 4), (4, 2, 2))]
    batch = batch_of(*pairs)
    batch.student.requires_grad_()
    shapes = [(tuple(maps.shape[1:]), IGNORED) for maps, _ in pairs]
    BeYourOwnTeacher().build(given_of(*shapes))(batch).backward()
    assert [feature.grad is not None for feature in batch.student_features] == [True, True, False]
    assert batch.student.grad is None
