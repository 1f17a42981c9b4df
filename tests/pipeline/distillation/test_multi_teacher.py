"""KD from several teachers: their mean probability, which is not their mean logit."""

from dataclasses import replace

import pytest
import torch
from logits import draw_batch, gradient, make_given

from pipeline.distillation.multi_teacher import EnsembleDistillation
from pipeline.distillation.response import KnowledgeDistillation
from pipeline.errors import RecipeError


def test_with_one_teacher_it_is_kd() -> None:
    batch = draw_batch()
    assert EnsembleDistillation()(batch).item() == pytest.approx(KnowledgeDistillation()(batch).item(), rel=1e-12)


def test_its_gradient_is_the_mean_of_the_gradients_of_each_teachers_kd() -> None:
    batch = draw_batch(num_teachers=3)
    kd = KnowledgeDistillation(temperature=2.0)
    each = [gradient(kd(replace(batch, teacher=teacher)), batch) for teacher in batch.teachers]
    ours = gradient(EnsembleDistillation(temperature=2.0)(batch), batch)
    assert torch.allclose(ours, torch.stack(each).mean(dim=0), rtol=1e-10, atol=0)


def test_the_mean_of_the_logits_is_another_teacher() -> None:
    certain = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[0.0, 3.0, 0.0]])
    batch = replace(draw_batch(), teachers=certain, student=torch.zeros(1, 3, requires_grad=True))
    pulled = -gradient(EnsembleDistillation(temperature=1.0)(batch), batch)
    of_mean_logits = torch.softmax(sum(certain) / 2, dim=1) - 1 / 3  # what KD from averaged logits would pull by
    assert (pulled + 1 / 3)[0, 1] == pytest.approx(0.455, abs=1e-3)  # half of softmax(0, 3, 0)
    assert (of_mean_logits + 1 / 3)[0, 1] == pytest.approx(0.047, abs=1e-3)


def test_weights_for_another_number_of_teachers_are_refused() -> None:
    loss = EnsembleDistillation(teacher_weights=(0.5, 0.5))
    with pytest.raises(RecipeError, match=r"one weight a teacher, 3; got 2: \[0.5, 0.5\]"):
        loss.build(replace(make_given(5), num_teachers=3))


def test_weights_that_are_all_zero_are_refused_before_the_first_step() -> None:
    with pytest.raises(RecipeError, match=r"one weight above 0 at least; got \[0.0, 0.0\]"):
        EnsembleDistillation(teacher_weights=(0.0, 0.0)).build(make_given(5))
