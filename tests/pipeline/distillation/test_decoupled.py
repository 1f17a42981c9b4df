"""DKD and NKD: how they relate to KD, and what they do where a student is sure."""

from dataclasses import replace

import pytest
import torch
from logits import draw_batch, gradient

from pipeline.distillation.decoupled import DecoupledDistillation, NormalizedDistillation
from pipeline.distillation.response import KnowledgeDistillation


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_dkd_whose_beta_is_what_the_teacher_leaves_to_the_others(temperature: float) -> None:
    batch = draw_batch(num_images=1)
    assert batch.teacher is not None
    left = 1 - torch.softmax(batch.teacher / temperature, dim=1)[0, batch.labels[0]].item()
    dkd = DecoupledDistillation(temperature=temperature, beta=left)  # Zhao et al., equation 5
    assert dkd(batch).item() == pytest.approx(KnowledgeDistillation(temperature=temperature)(batch).item(), rel=1e-12)


@pytest.mark.parametrize("sure_of", [0, 1])
def test_a_student_sure_beyond_rounding_gets_a_finite_gradient_in_float32(sure_of: int) -> None:
    student = torch.tensor([[1e4, 0.0, 1.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 1.0, 2.0]])
    batch = replace(draw_batch(), student=student, teacher=teacher, labels=torch.tensor([sure_of]))
    for loss in (DecoupledDistillation(temperature=1.0), NormalizedDistillation()):
        value = loss(batch)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient(value, batch)).all()


def test_the_second_part_of_nkd_does_not_see_the_true_class() -> None:
    batch = draw_batch()
    raised = replace(batch, student=batch.student + 7 * torch.nn.functional.one_hot(batch.labels, 5))

    def second_part(of: NormalizedDistillation) -> tuple[float, float]:
        first_alone = NormalizedDistillation(gamma=0.0)
        return (of(batch) - first_alone(batch)).item(), (of(raised) - first_alone(raised)).item()

    before, after = second_part(NormalizedDistillation(temperature=2.0))
    assert after == pytest.approx(before, rel=1e-9)
