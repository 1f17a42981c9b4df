"""FitNet and SRD: projectors that fit, the trap of their ReLU, and values that theory knows."""

import math

import pytest
import torch
from feature_batches import batch_of, given_of
from torch import Tensor

from pipeline.distillation.hints import BN_EPS, SRD, FitNet, LogSumTerm
from pipeline.errors import RecipeError


@pytest.mark.parametrize(
    ("student", "teacher", "kernel"),
    [((16, 16), (8, 8), (3, 3)), ((4, 4), (8, 8), (4, 4)), ((8, 8), (8, 8), (1, 1)), ((10, 7), (8, 7), (3, 1))],
)
def test_the_projector_takes_the_students_map_to_the_teachers_by_the_published_kernel(
    student: tuple[int, int], teacher: tuple[int, int], kernel: tuple[int, int]
) -> None:
    (projector,) = FitNet().build(given_of(((3, *student), (5, *teacher)))).projectors
    assert projector(torch.randn(2, 3, *student)).shape == (2, 5, *teacher)
    assert projector.get_parameter("0.weight").shape[2:] == kernel


def test_a_student_map_that_no_projector_of_the_source_enlarges_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"'stage:2' \[3, 5, 5\].*'stage:2' \[4, 8, 8\].*name a shallower layer"):
        FitNet().build(given_of(((3, 5, 5), (4, 8, 8))))


@pytest.mark.parametrize(
    ("loss", "can_be_negative"),
    [
        (FitNet(), False),
        (FitNet(relu=False), True),
        (FitNet(teacher_layers=("stage:2:input",)), True),
    ],
)
def test_the_projector_gives_negative_values_where_the_teacher_does(loss: FitNet, can_be_negative: bool) -> None:
    (projector,) = loss.build(given_of(((3, 4, 4), (2, 4, 4)))).projectors
    assert bool((projector(torch.randn(8, 3, 4, 4)) < 0).any()) == can_be_negative


def srd(dim_s: int, dim_t: int) -> LogSumTerm:
    torch.manual_seed(0)
    return SRD().build(given_of(((dim_s,), (dim_t,)))).double()


def test_srd_of_two_samples_that_the_student_orders_wrongly_is_known_in_closed_form() -> None:
    term = srd(1, 1)
    term.load_state_dict({"projectors.0.weight": torch.tensor([[-3.0]])})
    features = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)  # normalized: student +-1, teacher -+1, apart by 2
    parts = 1 / math.sqrt(1 + BN_EPS) + 3 / math.sqrt(9 + BN_EPS)
    value = term(batch_of((features.clone(), features)))
    assert value.item() == pytest.approx(2 * math.log(2 * parts**4), rel=1e-9)


def test_srd_of_a_batch_twice_over_grows_by_2_log_2_and_the_gradient_of_the_weights_not_at_all() -> None:
    term, student, teacher = srd(3, 4), torch.randn(6, 3).double(), torch.randn(6, 4).double()
    values, gradients = [], []
    for repeats in (1, 2):
        value = term(batch_of((student.detach().repeat(repeats, 1), teacher.repeat(repeats, 1))))
        gradients += torch.autograd.grad(value, list(term.parameters()))
        values.append(value.item())
    assert values[1] - values[0] == pytest.approx(2 * math.log(2), rel=1e-9)
    assert torch.allclose(*gradients, rtol=1e-9)


def test_srd_of_equal_features_and_of_constant_columns_is_finite_with_a_gradient_of_zero() -> None:
    term = srd(2, 2)
    term.load_state_dict({"projectors.0.weight": torch.eye(2)})
    features = torch.randn(5, 2).double()
    features[:, 1] = 7.0
    batch = batch_of((features.clone(), features))
    value = term(batch)
    value.backward()
    assert value.isfinite()
    assert batch.student_features[0].grad is not None
    assert batch.student_features[0].grad.abs().max() < 1e-9


def test_srd_of_two_processes_is_that_of_one() -> None:
    term, student, teacher = srd(3, 4), torch.randn(8, 3).double(), torch.randn(8, 4).double()
    seen: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        seen.append(tensor.detach())
        return tensor

    term(batch_of((student[4:], teacher[4:]), gather=keep))  # what the other process sends
    halves = batch_of((student[:4], teacher[:4]), gather=lambda tensor: torch.cat([tensor, seen.pop(0)]))
    assert term(halves).item() == pytest.approx(term(batch_of((student, teacher))).item(), rel=1e-9)


def test_srd_reads_features_from_disk_already_averaged() -> None:
    torch.manual_seed(0)
    loss = SRD()
    term = loss.build(given_of(((3, 2, 2), (4, 2, 2))))
    student, teacher = torch.randn(6, 3, 2, 2), torch.randn(6, 4, 2, 2)
    live, stored = (term(batch_of((student, kept))).item() for kept in (teacher, teacher.mean(dim=(2, 3))))
    assert loss.needs.pooled
    assert stored == pytest.approx(live, rel=1e-6)
