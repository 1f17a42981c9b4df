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
from loss_case import LossCase
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
    """Return the term, its parts made from a fixed seed."""
    torch.manual_seed(0)
    term = case.loss.build(case.sample.given())
    if isinstance(term, nn.Module):
        with torch.no_grad():
            term(case.sample.batch(torch.float32))  # lazy parts take their shapes
        return term.to(dtype)
    return term


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
    inputs = [*([batch.student] if "student" in case.gradient_of else [])]
    taught = [place for place in range(len(batch.student_features)) if place not in case.taken_as_given]
    inputs += [batch.student_features[place] for place in taught] if "student_features" in case.gradient_of else []
    term = built(case)
    state = {name: value.clone() for name, value in term.state_dict().items()} if isinstance(term, nn.Module) else {}

    def of(*tensors: Tensor) -> Tensor:
        given = list(tensors)
        student = given.pop(0) if "student" in case.gradient_of else batch.student
        features = list(batch.student_features)
        for place, feature in zip(taught, given, strict=False):
            features[place] = feature
        own = replace(batch, student=student, student_features=tuple(features))
        if not isinstance(term, nn.Module):
            return term(own)
        fresh = {name: value.clone() for name, value in state.items()}  # what it keeps of batches is no part of it
        value: Tensor = functional_call(term, fresh, (own,))
        return value

    assert torch.autograd.gradcheck(of, inputs, eps=1e-6, atol=1e-6, rtol=1e-4)


def test_a_batch_twice_over_has_the_same_value_where_the_source_says_so(case: LossCase) -> None:
    once, twice = (fresh_value(case, case.sample.batch(repeats=repeats)).item() for repeats in (1, 2))
    assert (twice == pytest.approx(once, rel=max(case.tolerance, 1e-9))) == case.repeatable


def test_a_term_is_float32_inside_under_autocast(case: LossCase) -> None:
    term = built(case, torch.float32)
    expected = case.expected(case.sample, term)
    sample = case.sample
    places = range(len(sample.student_features)), range(len(sample.teacher_features))
    objective = Objective({"term": PlacedTerm(case.loss, term, *map(tuple, places))}, epochs=10**6)
    with torch.autocast("cpu", torch.bfloat16):
        (value,) = objective(sample.batch(torch.float32), case.loss.warmup_epochs).values()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(case.loss.weight * expected, rel=2e-4)  # bfloat16 would part by 1e-2


def test_where_theory_says_zero_value_and_gradient_are_zero(case: LossCase) -> None:
    if case.zero is None:
        pytest.skip("no sample on which this term is zero")
    batch = case.zero.batch()
    term = built(case)
    value = term(batch)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-10)
    for name in case.gradient_of:
        tensors = (batch.student,) if name == "student" else batch.student_features
        assert all(tensor.grad is None or tensor.grad.abs().max() < 1e-6 for tensor in tensors)


def test_trained_parts_learn_and_come_back_from_their_state(case: LossCase) -> None:
    term = built(case)
    if not isinstance(term, nn.Module):
        pytest.skip("no trained part")
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
