"""Which classes the losses on logits refuse, and that the reason they give is true."""

import logging
from dataclasses import replace

import pytest
import torch
from logits import draw_batch, gradient, make_given

from pipeline.distillation.correlation import CorrelationDistillation
from pipeline.distillation.decoupled import DecoupledDistillation, NormalizedDistillation
from pipeline.distillation.loss import Loss
from pipeline.distillation.multi_teacher import EnsembleDistillation
from pipeline.distillation.response import HardLabel, KnowledgeDistillation
from pipeline.errors import RecipeError

STANDARDIZED = KnowledgeDistillation(standardize=True)
NEEDS_THREE: tuple[Loss, ...] = (
    STANDARDIZED,
    DecoupledDistillation(),
    NormalizedDistillation(),
    CorrelationDistillation(),
)
SAME_CLASSES: tuple[Loss, ...] = (*NEEDS_THREE, KnowledgeDistillation(), HardLabel(), EnsembleDistillation())


@pytest.mark.parametrize("loss", NEEDS_THREE, ids=lambda loss: loss.kind)
def test_two_classes_are_refused_with_the_reason(loss: Loss) -> None:
    assert loss.build(make_given(5)) is loss
    with pytest.raises(RecipeError, match=rf"losses: {loss.kind}.*at least 3 classes; got 2, where .* always"):  # type: ignore[attr-defined]
        loss.build(make_given(2))


@pytest.mark.parametrize("loss", SAME_CLASSES, ids=lambda loss: loss.kind)
def test_a_teacher_of_other_classes_is_refused_with_what_to_take_instead(loss: Loss) -> None:
    with pytest.raises(RecipeError, match='as the student, 10; got one of 7: kind = "lwf" compares the 7'):
        loss.build(make_given(10, num_teacher_classes=7))
    with pytest.raises(RecipeError, match=r"as the student, 10; got one of 12: train the teacher's last layer"):
        loss.build(make_given(10, num_teacher_classes=12))


def test_two_standardized_logits_say_nothing_but_which_is_higher() -> None:
    batch = draw_batch(num_classes=2)
    assert batch.teacher is not None
    surer = replace(batch, student=50 * batch.student, teacher=0.1 * batch.teacher)
    assert STANDARDIZED(surer).item() == pytest.approx(STANDARDIZED(batch).item(), rel=1e-4)


def test_of_two_classes_dkd_and_nkd_have_no_second_part_and_dist_correlates_by_one() -> None:
    batch = draw_batch(num_classes=2)
    assert DecoupledDistillation(alpha=0.0, beta=8.0)(batch).item() == 0
    assert NormalizedDistillation(gamma=100.0)(batch).item() == NormalizedDistillation(gamma=0.0)(batch).item()
    halves = CorrelationDistillation(temperature=1.0, gamma=0.0)(batch).item() * len(batch.labels) / 2
    assert halves == pytest.approx(round(halves), abs=1e-9)  # 1 - rho is 0 or 2 for each image


@pytest.mark.parametrize(("classes", "temperature"), [(3, 4.0), (4, 1.0)])
def test_few_standardized_classes_are_warned_of_with_the_highest_probability(
    classes: int, temperature: float, caplog: pytest.LogCaptureFixture
) -> None:
    row = torch.eye(classes, dtype=torch.float64)[0]
    highest = torch.softmax((row - row.mean()) / row.std() / temperature, dim=0)[0].item()
    with caplog.at_level(logging.WARNING):
        KnowledgeDistillation(standardize=True, temperature=temperature).build(make_given(classes))
    (record,) = caplog.records
    assert f"of {classes} classes at temperature {temperature:g}" in record.message
    assert f"more than {100 * highest:.0f} %" in record.message


def test_five_standardized_classes_pass_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    STANDARDIZED.build(make_given(5))
    assert caplog.records == []


def test_a_student_that_says_the_same_of_all_classes_gets_a_finite_gradient() -> None:
    batch = replace(draw_batch(), student=torch.zeros(6, 5, dtype=torch.float64, requires_grad=True))
    for loss in (STANDARDIZED, DecoupledDistillation(), NormalizedDistillation(), CorrelationDistillation()):
        assert torch.isfinite(gradient(loss(batch), batch)).all()


def test_the_teachers_doubt_does_not_matter_to_a_hard_label() -> None:
    batch = draw_batch()
    assert batch.teacher is not None
    assert HardLabel()(replace(batch, teacher=0.01 * batch.teacher)).item() == HardLabel()(batch).item()
