"""LwF: only the old classes are held, and their number is checked."""

import logging
from dataclasses import replace

import pytest
from logits import draw_batch, gradient, make_given

from pipeline.distillation.lifelong import LearningWithoutForgetting
from pipeline.distillation.response import KnowledgeDistillation
from pipeline.errors import RecipeError


def test_the_new_classes_are_left_alone() -> None:
    drawn = draw_batch()
    assert drawn.teacher is not None
    batch = replace(drawn, teacher=drawn.teacher[:, :3])
    pulled = gradient(LearningWithoutForgetting()(batch), batch)
    assert pulled[:, 3:].abs().max() == 0
    assert pulled[:, :3].abs().min() > 0


def test_a_teacher_of_more_classes_than_the_student_is_refused() -> None:
    with pytest.raises(RecipeError, match="fewer classes than the student's 5, its first ones; got one of 7"):
        LearningWithoutForgetting().build(make_given(5, num_teacher_classes=7))


def test_with_no_class_to_add_it_is_warned_of_and_is_kd_without_its_factor(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        loss = LearningWithoutForgetting(temperature=3.0).build(make_given(5))
    assert [record.message for record in caplog.records if "the same 5 classes" in record.message]
    batch = draw_batch()
    assert 9 * loss(batch).item() == pytest.approx(KnowledgeDistillation(temperature=3.0)(batch).item(), rel=1e-12)
