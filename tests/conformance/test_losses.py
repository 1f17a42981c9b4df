"""What every loss must do, and what each is: values from NumPy, gradients from finite differences."""

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.distillation import AnyLoss
from pipeline.distillation.labels import CrossEntropy
from pipeline.distillation.loss import Batch
from pipeline.distillation.response import KnowledgeDistillation
from pipeline.training.objective import WeightedLosses
from pipeline.user_files import UserObject

RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(0, 3, (6, 5)), RNG.normal(0, 3, (6, 5))
LABELS = RNG.integers(0, 5, 6)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def cross_entropy(smoothing: float) -> float:
    q = np.full((6, 5), smoothing / 5)
    q[np.arange(6), LABELS] += 1 - smoothing
    return float(-(q * np.log(softmax(STUDENT))).sum(axis=1).mean())


def standardized(z: np.ndarray) -> np.ndarray:
    return (z - z.mean(axis=1, keepdims=True)) / (z.std(axis=1, ddof=1, keepdims=True) + 1e-7)


def kd(temperature: float, prepare: Callable[[np.ndarray], np.ndarray] = lambda z: z) -> float:
    p = softmax(prepare(TEACHER) / temperature)
    q = softmax(prepare(STUDENT) / temperature)
    return float(temperature**2 * (p * np.log(p / q)).sum(axis=1).mean())


CASES = {
    "cross_entropy": (CrossEntropy(), cross_entropy(0.0)),
    "smoothed": (CrossEntropy(label_smoothing=0.1), cross_entropy(0.1)),
    "kd": (KnowledgeDistillation(), kd(4.0)),
    "kd, T = 1": (KnowledgeDistillation(temperature=1.0), kd(1.0)),
    "standardized kd": (KnowledgeDistillation(standardize=True, temperature=2.0), kd(2.0, standardized)),
}
"""Every loss of the union, and its value on the batch by an independent formula."""


def make_batch(student: np.ndarray = STUDENT, repeats: int = 1) -> Batch:
    """Return the batch in float64, whose differences a gradient can be checked with."""
    rows = np.tile(np.arange(6), repeats)
    logits = torch.tensor(student[rows], requires_grad=True)
    return Batch(logits, torch.tensor(TEACHER[rows]), torch.tensor(LABELS[rows]))


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> tuple[CrossEntropy | KnowledgeDistillation, float]:
    return request.param


def test_every_loss_of_the_union_is_tested() -> None:
    union = get_args(get_args(AnyLoss)[0])
    assert {get_args(member)[0] for member in union} - {UserObject} == {type(loss) for loss, _ in CASES.values()}


def test_the_value_is_that_of_the_formula(case: tuple[CrossEntropy | KnowledgeDistillation, float]) -> None:
    loss, expected = case
    value = loss(make_batch())
    assert value.shape == ()
    assert value.item() == pytest.approx(expected, rel=1e-12)  # both in float64


def test_the_gradient_is_that_of_finite_differences(case: tuple[CrossEntropy | KnowledgeDistillation, float]) -> None:
    loss, _ = case
    batch = make_batch()

    def of(student: Tensor) -> Tensor:
        return loss(Batch(student, batch.teacher, batch.labels))

    assert torch.autograd.gradcheck(of, (batch.student,), eps=1e-6, atol=1e-8, rtol=1e-5)


def test_a_batch_twice_over_has_the_same_value(case: tuple[CrossEntropy | KnowledgeDistillation, float]) -> None:
    loss, expected = case
    assert loss(make_batch(repeats=2)).item() == pytest.approx(expected, rel=1e-12)


def test_terms_are_float32_inside_under_autocast(case: tuple[CrossEntropy | KnowledgeDistillation, float]) -> None:
    loss, expected = case
    single = Batch(torch.tensor(STUDENT).float(), torch.tensor(TEACHER).float(), torch.tensor(LABELS))
    with torch.autocast("cpu", torch.bfloat16):
        (value,) = WeightedLosses([loss])(single).values()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss.weight * expected, rel=1e-5)  # bfloat16 would part by 1e-2


@pytest.mark.parametrize("standardize", [False, True])
def test_a_student_like_its_teacher_has_nothing_to_learn(standardize: bool) -> None:
    loss = KnowledgeDistillation(standardize=standardize)
    batch = make_batch(student=TEACHER)
    value = loss(batch)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert batch.student.grad is not None
    assert batch.student.grad.abs().max() < 1e-12


def test_standardized_logits_may_differ_by_scale_and_shift() -> None:
    loss = KnowledgeDistillation(standardize=True)
    assert loss(make_batch(student=3 * TEACHER + 7)).item() == pytest.approx(0, abs=1e-12)


def test_the_gradient_of_kd_keeps_its_size_while_temperature_grows() -> None:
    """Section 2 of Hinton et al.: for T far above the logits it tends to (z_s - z_t) / (K B), rows centred."""
    batch = make_batch()
    KnowledgeDistillation(temperature=1e4)(batch).backward()
    difference = STUDENT - TEACHER
    expected = (difference - difference.mean(axis=1, keepdims=True)) / (5 * 6)
    assert batch.student.grad is not None
    np.testing.assert_allclose(batch.student.grad.numpy(), expected, rtol=1e-2, atol=1e-4)


def test_terms_are_weighted_and_named_apart() -> None:
    losses = [CrossEntropy(weight=0.1), KnowledgeDistillation(weight=0.5), KnowledgeDistillation(temperature=1.0)]
    objective = WeightedLosses(losses)
    terms = objective(make_batch())
    assert list(terms) == ["cross_entropy", "kd", "kd'"]
    assert terms["kd"].item() == pytest.approx(0.5 * kd(4.0))
    assert terms["kd'"].item() == pytest.approx(0.9 * kd(1.0))
    assert objective.needs_teacher
    assert not WeightedLosses(losses[:1]).needs_teacher
