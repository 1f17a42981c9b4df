"""Weights of terms over a run, and losses built for networks."""

import pytest
import torch
from torch import nn

from pipeline.distillation.attention import AttentionTransfer
from pipeline.distillation.hints import FitNet
from pipeline.distillation.labels import CrossEntropy
from pipeline.distillation.loss import Batch
from pipeline.distillation.response import KnowledgeDistillation
from pipeline.errors import RecipeError
from pipeline.models.resnet import ResNet
from pipeline.training.objective import Networks, Objective, PlacedTerm, build_objective, weight_at

EXAMPLE = torch.zeros(1, 3, 16, 16)


def networks(*teachers: nn.Module) -> Networks:
    student = ResNet(depth=8, width=4).build(3, 10)
    labels = torch.arange(20) % 10
    return Networks(student, EXAMPLE, teachers, EXAMPLE, labels, 10, 10, lambda: student, same_architecture=True)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [("none", [0, 1, 2, 2, 2, 2]), ("linear", [0, 1, 2, 1.5, 1, 0]), ("cosine", [0, 1, 2, 1.7071, 1, 0])],
)
def test_a_weight_warms_up_and_falls_as_it_says(decay: str, expected: list[float]) -> None:
    loss = KnowledgeDistillation.model_validate({"weight": 2.0, "warmup_epochs": 2.0, "decay": decay})
    weights = [weight_at(loss, epoch, 10) for epoch in (0, 1, 2, 4, 6, 10)]
    assert weights == pytest.approx(expected, abs=1e-4)


def test_a_term_counts_with_its_weight_at_the_epoch() -> None:
    losses = (CrossEntropy(weight=0.5), CrossEntropy(weight=1.0, warmup_epochs=4.0))
    objective = build_objective(losses, networks(), epochs=8)
    batch = Batch(torch.randn(6, 10), None, torch.arange(6))
    plain = CrossEntropy()(batch).item()
    terms = {name: value.item() for name, value in objective(batch, 1.0).items()}
    assert terms == pytest.approx({"cross_entropy": 0.5 * plain, "cross_entropy'": 0.25 * plain})


def test_terms_get_the_layers_that_they_asked_for_and_no_others() -> None:
    teacher = ResNet(depth=14, width=8).build(3, 10)
    objective = build_objective((FitNet(), AttentionTransfer()), networks(teacher), epochs=1)
    assert objective.student_layers == ("layer2.0.relu2", "layer1.0.relu2", "layer3.0.relu2")
    assert objective.teacher_layers == ("layer2.1.relu2", "layer1.1.relu2", "layer3.1.relu2")
    assert not objective.pooled
    assert {name.split(".")[1] for name, _ in objective.named_parameters()} == {"fitnet"}


def test_a_term_that_is_no_scalar_is_named() -> None:
    objective = Objective({"mine": PlacedTerm(CrossEntropy(), lambda batch: batch.student.sum(dim=1))}, epochs=1)
    with pytest.raises(
        RecipeError, match=r"losses: mine: expected a scalar, the mean over the batch; got a tensor \[6\]"
    ):
        objective(Batch(torch.randn(6, 10), None, torch.arange(6)), 0.0)


def test_a_warm_up_that_never_ends_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    build_objective((CrossEntropy(warmup_epochs=20.0),), networks(), epochs=5)
    assert "its weight warms up over 20 epochs, but training has 5" in caplog.text


def test_a_loss_that_wants_a_teacher_or_a_layer_says_what_is_missing() -> None:
    with pytest.raises(RecipeError, match="expected a teacher for a loss that reads its logits; got none"):
        build_objective((KnowledgeDistillation(),), networks(), epochs=1)
    fitnet = FitNet(teacher_layers=("layer9",))
    with pytest.raises(
        RecipeError, match=r"losses: fitnet: teacher_layers: expected the name of a layer; got 'layer9'"
    ):
        build_objective((fitnet,), networks(ResNet(depth=8).build(3, 10)), epochs=1)
