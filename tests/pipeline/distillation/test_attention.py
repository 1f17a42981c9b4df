"""AT: refused where attention says nothing, warned of where it harms, finite where maps are dead."""

import logging

import pytest
import torch
from feature_batches import batch_of, given_of

from pipeline.distillation.attention import AttentionTransfer
from pipeline.errors import RecipeError

ONE = AttentionTransfer(student_layers=("a",), teacher_layers=("b",))
MAPS = ((3, 4, 4), (5, 4, 4))


def test_a_map_of_one_position_is_refused_since_its_attention_is_always_one() -> None:
    with pytest.raises(RecipeError, match=r"'a' \[3, 4, 4\].*'b' \[5, 1, 1\].*shallower layers"):
        ONE.build(given_of(((3, 4, 4), (5, 1, 1))))


def test_across_architectures_it_warns_with_the_published_collapse(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ONE.build(given_of(MAPS))
        assert not caplog.records
        ONE.build(given_of(MAPS, same_architecture=False))
    (record,) = caplog.records
    assert all(figure in record.getMessage() for figure in ("64.60", "59.40", "58.58"))


def test_disjoint_attention_costs_two_by_the_number_of_positions() -> None:
    student, teacher = torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 4, 4)
    student[:, :, 0, 0], teacher[:, :, 3, 3] = 1.0, -2.0
    assert ONE(batch_of((student, teacher))).item() == pytest.approx(2 / 16, rel=1e-6)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-6])
def test_a_dead_or_dying_map_has_a_finite_gradient(p: float, size: float) -> None:
    loss = ONE.model_copy(update={"p": p})
    batch = batch_of((torch.full((2, 3, 4, 4), size), torch.randn(2, 5, 4, 4)))
    value = loss(batch)
    value.backward()
    gradient = batch.student_features[0].grad
    assert value.isfinite()
    assert gradient is not None
    assert gradient.isfinite().all()
