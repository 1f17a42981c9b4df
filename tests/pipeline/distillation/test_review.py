"""ReviewKD: what theory knows of the hierarchical context loss, and the layers that it reads."""

import pytest
import torch
from feature_batches import batch_of, given_of

from pipeline.distillation.review import Fusion, KnowledgeReview, hierarchical_context_loss


@pytest.mark.parametrize("size", [(8, 8), (4, 4), (3, 5), (1, 1)])
def test_a_constant_difference_costs_its_square_at_every_size(size: tuple[int, int]) -> None:
    teacher = torch.randn(2, 3, *size, dtype=torch.float64)
    assert hierarchical_context_loss(teacher + 0.5, teacher).item() == pytest.approx(0.25, rel=1e-9)


def test_a_difference_that_averages_out_costs_its_own_level_alone() -> None:
    board = torch.ones(8, 8, dtype=torch.float64)
    board[::2, 1::2] = board[1::2, ::2] = -1  # every cell of every coarser grid averages to 0
    value = hierarchical_context_loss(board.expand(2, 3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.float64))
    assert value.item() == pytest.approx(1 / (1 + 1 / 2 + 1 / 4 + 1 / 8), rel=1e-9)


def test_the_pooled_level_reads_the_last_layers_after_their_activation() -> None:
    needs = KnowledgeReview().needs
    assert needs.student_layers == ("stage:1", "stage:2", "stage:3", "stage:3")
    assert needs.teacher_layers == ("stage:1:input", "stage:2:input", "stage:3:input", "stage:3")
    assert KnowledgeReview(pooled_level=False).needs.teacher_layers == needs.teacher_layers[:3]


def test_residuals_have_the_deepest_layers_channels_up_to_the_limit() -> None:
    loss = KnowledgeReview(student_layers=("a",), teacher_layers=("b",), max_mid_channels=5)
    for channels, expected in ((4, 4), (64, 5)):
        term = loss.build(given_of(*2 * [((channels, 4, 4), (2, 4, 4))]))
        assert {fusion.get_parameter("reduce.0.weight").shape[0] for fusion in term.fusions} == {expected}


def test_deep_features_of_the_student_learn_from_shallow_ones_of_the_teacher() -> None:
    torch.manual_seed(0)
    loss = KnowledgeReview(student_layers=("a", "b"), teacher_layers=("c", "d"), pooled_level=False)
    shapes = ((3, 4, 4), (2, 4, 4)), ((4, 2, 2), (5, 2, 2))
    term = loss.build(given_of(*shapes))
    deepest = term.fusions[1]
    assert isinstance(deepest, Fusion)
    for parameter in deepest.expand.parameters():
        parameter.requires_grad_(False).zero_()  # the deepest level itself no longer depends on the student
    batch = batch_of(*((torch.randn(6, *student), torch.randn(6, *teacher)) for student, teacher in shapes))
    term(batch).backward()
    assert batch.student_features[1].grad is not None
    assert batch.student_features[1].grad.abs().max() > 0
