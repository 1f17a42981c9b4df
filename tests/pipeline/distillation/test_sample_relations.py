import math

import pytest
import torch
from feature_batches import given_of
from processes import values_in_two_processes
from torch import Tensor
from torch.nn import functional as F

from pipeline.distillation.loss import Batch
from pipeline.distillation.sample_relations import RelationalKnowledgeDistillation, SimilarityPreserving
from pipeline.errors import RecipeError

RKD, SP = RelationalKnowledgeDistillation(), SimilarityPreserving()


def batch_of(student: Tensor, teacher: Tensor) -> Batch:
    index = torch.arange(len(student))
    return Batch(
        student=index[:, None].float(),
        teacher=None,
        labels=index,
        student_features=(student,),
        teacher_features=(teacher,),
        index=index,
    )


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rkd_of_a_line_against_an_equilateral_triangle_is_the_closed_form() -> None:
    triangle = torch.tensor([[0, 0], [1, 0], [0.5, math.sqrt(3) / 2]], dtype=torch.float64)
    line = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    # distances over their mean: 1, 1, 1 against 3/4, 3/4, 3/2; cosines: 1/2 against 1 at both ends and -1 between
    distances = 2 * (2 * 0.25**2 / 2 + 0.5**2 / 2) / 9
    angles = 2 * (2 * 0.5**2 / 2 + (1.5 - 0.5)) / 27
    assert RKD(batch_of(line, triangle)).item() == pytest.approx(25 * distances + 50 * angles, rel=1e-12)


def test_angles_that_are_computed_in_parts_have_the_same_value_and_gradient() -> None:
    student, teacher = drawn(180, 3).requires_grad_(), drawn(180, 2, seed=1)  # 180^3 > 2^22
    term = RelationalKnowledgeDistillation(distance=0.0, angle=1.0)
    (gradient,) = torch.autograd.grad(term(batch_of(student, teacher)), student)

    def cosines(f: Tensor) -> Tensor:
        directions = F.normalize(f[None] - f[:, None], dim=2)
        return torch.einsum("jid,jkd->jik", directions, directions)

    whole = F.smooth_l1_loss(cosines(student), cosines(teacher))
    assert term(batch_of(student, teacher)).item() == pytest.approx(whole.item(), rel=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad(whole, student)[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", [RKD, SP], ids=["rkd", "sp"])
@pytest.mark.parametrize("collapse", ["all equal", "two equal", "all zero", "one zero"])
def test_samples_that_are_equal_or_dead_give_finite_gradients(
    loss: RelationalKnowledgeDistillation | SimilarityPreserving, collapse: str
) -> None:
    student = drawn(5, 4).float()
    student[slice(None) if collapse.startswith("all") else slice(1, 2)] = student[0] if "equal" in collapse else 0
    student.requires_grad_()
    value = loss(batch_of(student, drawn(5, 3, seed=1).float()))
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e3


@pytest.mark.parametrize("loss", [RKD, SP], ids=["rkd", "sp"])
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e10])
def test_scale_is_not_seen_however_small_the_features(
    loss: RelationalKnowledgeDistillation | SimilarityPreserving, scale: float
) -> None:
    student, teacher = drawn(5, 4).float(), drawn(5, 3, seed=1).float()
    results = []
    for factor in (1, scale):
        scaled = (student * factor).requires_grad_()
        value = loss(batch_of(scaled, teacher * factor))
        (gradient,) = torch.autograd.grad(value, scaled)
        results.append((value.detach(), gradient * factor))  # of f(x / s) it is that of f over s
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", [RKD, SP], ids=["rkd", "sp"])
def test_two_processes_see_the_relations_of_the_whole_batch(
    loss: RelationalKnowledgeDistillation | SimilarityPreserving,
) -> None:
    batch = batch_of(drawn(6, 4), drawn(6, 3, seed=1))
    assert values_in_two_processes((loss, loss), batch) == pytest.approx([loss(batch).item()] * 2, rel=1e-12)


def test_sp_of_a_batch_twice_over_is_half() -> None:
    student, teacher = drawn(6, 4, 2, 2), drawn(6, 3, 3, 3, seed=1)
    once, twice = (SP(batch_of(student.repeat(n, 1, 1, 1), teacher.repeat(n, 1, 1, 1))).item() for n in (1, 2))
    assert twice == pytest.approx(once / 2, rel=1e-12)


def test_rkd_without_factors_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"rkd: expected distance or angle above 0; got 0 for both"):
        RelationalKnowledgeDistillation(distance=0.0, angle=0.0).build(given_of(((3,), (4,))))
