"""What every loss must do, and what each is: values from NumPy or closed forms, gradients from finite differences."""

from dataclasses import replace
from typing import get_args

import contrastive_cases
import correlation_cases
import decoupled_cases
import feature_cases
import online_cases
import pytest
import relation_cases
import response_cases
import self_distillation_cases
import teachers_cases
import torch
from loss_case import LossCase, as_bfloat16
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.distillation import AnyLoss
from pipeline.distillation.loss import Batch, Method, Term
from pipeline.training.objective import Objective, PlacedTerm
from pipeline.user_files import UserObject

CASES: dict[str, LossCase] = {
    **response_cases.CASES,
    **feature_cases.CASES,
    **decoupled_cases.CASES,
    **correlation_cases.CASES,
    **teachers_cases.CASES,
    **contrastive_cases.CASES,
    **online_cases.CASES,
    **relation_cases.CASES,
    **self_distillation_cases.CASES,
}
"""Every loss of the union."""


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> LossCase:
    found: LossCase = request.param
    return found


def built(case: LossCase, dtype: torch.dtype = torch.float64) -> Term:
    """Return the term, its parts made from a fixed seed; it has met no batch."""
    torch.manual_seed(0)
    term = case.loss.build(case.sample.given())
    return term.to(dtype) if isinstance(term, nn.Module) else term


def fresh_value(case: LossCase, batch: Batch) -> Tensor:
    return built(case)(batch)


def test_every_loss_of_the_union_is_tested() -> None:
    union = get_args(get_args(AnyLoss)[0])
    assert {get_args(member)[0] for member in union} - {UserObject} == {type(case.loss) for case in CASES.values()}


def test_the_value_is_that_of_the_formula(case: LossCase) -> None:
    term = built(case)
    expected = case.expected(case.sample, term)  # first: a term may keep what it met
    value = term(case.sample.batch())
    assert value.shape == ()
    assert value.item() == pytest.approx(expected, rel=case.tolerance)


def test_the_gradient_is_that_of_finite_differences(case: LossCase) -> None:
    batch = case.sample.batch()
    term = built(case)
    assert term(batch).requires_grad  # and some fix by their first batch what is a constant from there on
    parts = dict(term.named_parameters()) if isinstance(term, nn.Module) else {}
    parts = {name: part for name, part in parts.items() if not name.startswith(case.taught_apart)}
    state = {**term.state_dict()} if isinstance(term, nn.Module) else {}
    checked = [*(tensor for tensor, is_reached in of_student(case, batch) if is_reached), *parts.values()]

    def of(*tensors: Tensor) -> Tensor:
        new = {id(old): tensor for old, tensor in zip(checked, tensors, strict=True)}
        features = tuple(new.get(id(feature), feature) for feature in batch.student_features)
        own = replace(batch, student=new.get(id(batch.student), batch.student), student_features=features)
        if not isinstance(term, nn.Module):
            return term(own)
        fresh = {name: value.clone() for name, value in state.items()}  # what it keeps of batches is no part of it
        trained = {name: new[id(part)] for name, part in parts.items()}
        value: Tensor = functional_call(term, fresh | trained, (own,))
        return value

    assert torch.autograd.gradcheck(of, checked, eps=1e-6, atol=1e-6, rtol=1e-4)


def of_student(case: LossCase, batch: Batch) -> list[tuple[Tensor, bool]]:
    """Return what the student gives, and whether the case says that the gradient reaches it."""
    features = [
        (feature, "student_features" in case.gradient_of and place not in case.taken_as_given)
        for place, feature in enumerate(batch.student_features)
    ]
    return [(batch.student, "student" in case.gradient_of), *features]


def test_a_batch_twice_over_has_the_value_that_theory_says(case: LossCase) -> None:
    once, twice = (fresh_value(case, case.sample.batch(repeats=repeats)).item() for repeats in (1, 2))
    assert twice == pytest.approx(case.repeated(once), rel=max(case.tolerance, 1e-9))


def test_a_term_is_float32_inside_under_autocast(case: LossCase) -> None:
    term, sample = built(case, torch.float32), as_bfloat16(case.sample)
    expected = case.expected(sample, term)
    batch, features = sample.batch(torch.float32), sample.batch(torch.bfloat16)  # as `fit` gives them
    given = replace(batch, student_features=features.student_features, teacher_features=features.teacher_features)
    places = range(len(sample.student_features)), range(len(sample.teacher_features))
    objective = Objective({"term": PlacedTerm(case.loss, term, *map(tuple, places))}, epochs=10**6)
    with torch.autocast("cpu", torch.bfloat16):
        (value,) = objective(given, case.loss.warmup_epochs).values()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(case.loss.weight * expected, rel=2e-4)  # bfloat16 would part by 1e-2


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.zero is not None])
def test_where_theory_says_zero_value_and_gradient_are_zero(name: str) -> None:
    case = CASES[name]
    assert case.zero is not None
    term = built(case)
    batch = (case.zero(term) if callable(case.zero) else case.zero).batch()
    value = term(batch)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-10)
    for tensor, is_reached in of_student(case, batch):
        assert (tensor.grad is not None) == is_reached
        assert tensor.grad is None or tensor.grad.abs().max() < 1e-6


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if isinstance(built(case), nn.Module)])
def test_trained_parts_learn_and_come_back_from_their_state(name: str) -> None:
    case = CASES[name]
    term = built(case)
    assert isinstance(term, nn.Module)
    value = term(case.sample.batch())
    value.backward()
    idle = [name for name, p in term.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
    state = {name: tensor.clone() for name, tensor in term.state_dict().items()}
    again = built(case)
    assert isinstance(again, nn.Module)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    again.load_state_dict(state)
    assert again(case.sample.batch()).item() == pytest.approx(term(case.sample.batch()).item(), rel=1e-9)


def test_every_method_is_described(case: LossCase) -> None:
    method = type(case.loss).METHOD
    assert isinstance(method, Method)
    assert all(vars(method).values())
    assert type(case.loss).__doc__
