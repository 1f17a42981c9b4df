"""Pairs of layers: what does not fit is refused by name; what the losses propose by themselves fits real networks."""

import pytest
import torch
from feature_batches import given_of
from torch import nn

from pipeline.distillation.attention import AttentionTransfer
from pipeline.distillation.hints import SRD, FitNet
from pipeline.distillation.loss import Batch, LossPart, Needs
from pipeline.distillation.pairs import MAP_OR_VECTOR, pairs_of
from pipeline.distillation.review import KnowledgeReview
from pipeline.errors import RecipeError
from pipeline.models.resnet import ResNet
from pipeline.training.features import with_features
from pipeline.training.objective import Networks, build_objective


def test_other_numbers_of_layers_are_refused_with_their_names() -> None:
    needs = Needs(student_layers=("a", "b"), teacher_layers=("c",))
    with pytest.raises(RecipeError, match=r"losses: at: .*got \['a', 'b'\] and \['c'\]: name the teacher's layer"):
        pairs_of("at", needs, given_of(((2, 4, 4), (2, 4, 4))))
    with pytest.raises(RecipeError, match="at least one of each"):
        pairs_of("at", Needs(), given_of())


def test_a_feature_of_other_dimensions_is_refused_with_both_layers_and_shapes() -> None:
    needs = Needs(student_layers=("tokens",), teacher_layers=("conv",))
    given = given_of(((197, 64), (32, 8, 8)))
    with pytest.raises(RecipeError, match=r"'tokens' \[197, 64\].*'conv' \[32, 8, 8\].*name other"):
        pairs_of("srd", needs, given, expected=MAP_OR_VECTOR)


@pytest.mark.parametrize("loss", [FitNet(), SRD(), KnowledgeReview(), AttentionTransfer()], ids=lambda loss: loss.kind)
@pytest.mark.parametrize("teacher_width", [16, 24])
def test_layers_by_default_fit_residual_networks_and_the_gradient_reaches_the_student(
    loss: LossPart, teacher_width: int
) -> None:
    torch.manual_seed(0)
    student, teacher = ResNet(depth=8).build(3, 10), ResNet(depth=14, width=teacher_width).build(3, 10)
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
    networks = Networks(
        student, images[:1], (teacher,), images[:1], labels, 10, 10, nn.Identity, same_architecture=True
    )
    objective = build_objective([loss], networks, epochs=100)  # type: ignore[list-item]
    logits, features = with_features(student.train(), objective.student_layers, who="student")(images)
    with torch.no_grad():
        _, theirs = with_features(teacher.eval(), objective.teacher_layers, who="teacher")(images)
    batch = Batch(logits, None, labels, student_features=features, teacher_features=theirs)
    (value,) = objective(batch, epoch=100.0).values()
    value.backward()
    assert value.isfinite()
    first = student.get_parameter("conv1.weight").grad
    assert first is not None
    assert first.isfinite().all()
    assert first.abs().max() > 0
