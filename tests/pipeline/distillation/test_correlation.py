"""DIST over several processes, and where something does not vary."""

from dataclasses import replace

import pytest
import torch
from logits import draw_batch, gradient
from torch import Tensor

from pipeline.distillation.correlation import CorrelationDistillation


def test_half_a_batch_a_process_gives_the_value_of_the_whole_batch_where_it_is_gathered() -> None:
    whole = draw_batch(num_images=8)
    assert whole.teacher is not None

    def gathered(tensor: Tensor) -> Tensor:
        return whole.student if tensor is half.student else whole.teacher  # type: ignore[return-value]

    half = replace(whole, student=whole.student[:4], teacher=whole.teacher[:4], labels=whole.labels[:4])
    loss, expected = CorrelationDistillation(), CorrelationDistillation()(whole).item()
    assert loss(replace(half, gather=gathered)).item() == expected
    assert loss(half).item() != pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_student_that_gives_all_images_the_same_has_no_correlation_and_no_gradient(dtype: torch.dtype) -> None:
    same = torch.tensor([[0.3, 0.3, 0.3, 0.3, 0.3]], dtype=dtype).repeat(6, 1).requires_grad_()
    drawn = draw_batch()
    assert drawn.teacher is not None
    batch = replace(drawn, student=same, teacher=drawn.teacher.to(dtype))
    value = CorrelationDistillation(temperature=2.0, beta=3.0, gamma=5.0)(batch)
    assert value.item() == pytest.approx(4 * (3 + 5))
    assert gradient(value, batch).abs().max() == 0


def test_a_class_that_the_teacher_never_doubts_leaves_the_other_classes_to_teach() -> None:
    drawn = draw_batch()
    assert drawn.teacher is not None
    never = drawn.teacher.clone()
    never[:, 0] = -torch.inf  # probability 0 of every image: a column that does not vary
    batch = replace(drawn, teacher=never)
    taught = gradient(CorrelationDistillation()(batch), batch)
    assert torch.isfinite(taught).all()
    assert taught.abs().max() > 1e-2
