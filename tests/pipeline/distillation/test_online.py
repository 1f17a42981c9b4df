from dataclasses import replace

import pytest
import torch
from feature_batches import given_of
from torch import nn

from pipeline.distillation.loss import Batch
from pipeline.distillation.online import DeepMutualLearning


def new_student() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 3))


GIVEN = replace(given_of(), new_student=new_student)


def make_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    logits, images = torch.randn(4, 3, generator=generator), torch.randn(4, 2, 2, 2, generator=generator)
    return Batch(student=logits.requires_grad_(), teacher=None, labels=torch.tensor([0, 1, 2, 1]), images=images)


def test_each_network_learns_by_its_own_loss_alone() -> None:
    batch, lam = make_batch(), 0.5
    term = DeepMutualLearning(weight=lam).build(GIVEN)
    assert batch.images is not None
    peer = term.get_submodule("peer")(batch.images).softmax(1).detach()
    student = batch.student.softmax(1).detach()
    (lam * term(batch)).backward()
    labels = nn.functional.one_hot(batch.labels, 3)
    assert batch.student.grad is not None
    torch.testing.assert_close(batch.student.grad, lam * (student - peer) / 4)
    bias = term.get_parameter("peer.1.bias").grad
    torch.testing.assert_close(bias, ((peer - labels) + lam * (peer - student)).mean(dim=0))


def test_a_student_that_says_what_its_peer_does_learns_nothing() -> None:
    batch = make_batch()
    term = DeepMutualLearning().build(GIVEN)
    assert batch.images is not None
    alike = term.get_submodule("peer")(batch.images).detach().requires_grad_()
    value = term(replace(batch, student=alike))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert alike.grad is not None
    assert alike.grad.abs().max() < 1e-6


def test_a_peer_is_no_twin_of_a_student_of_the_same_seed() -> None:
    torch.manual_seed(0)
    student = new_student()
    torch.manual_seed(0)
    peer = DeepMutualLearning().build(GIVEN).get_submodule("peer")
    assert not torch.isclose(student.get_parameter("1.weight"), peer.get_parameter("1.weight")).any()


def test_bf16_runs_the_peer_in_bfloat16_and_the_loss_in_float32() -> None:
    values = []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        value = DeepMutualLearning(precision=precision).build(GIVEN)(make_batch())
        assert value.dtype == torch.float32
        values.append(value.item())
    assert values[1] == pytest.approx(values[0], rel=2e-2)
    assert values[1] != values[0]
