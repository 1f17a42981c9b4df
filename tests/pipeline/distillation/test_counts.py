"""One image alone is refused by the losses that compare images or norm by a batch, and by no other process."""

from dataclasses import replace

import pytest
import torch
from feature_batches import batch_of, given_of
from processes import values_in_two_processes

from pipeline.distillation import AnyLoss
from pipeline.distillation.contrastive import InfoNce
from pipeline.distillation.correlation import CorrelationDistillation
from pipeline.distillation.hints import SRD, FitNet
from pipeline.distillation.loss import Batch, Given, Term
from pipeline.distillation.review import KnowledgeReview
from pipeline.distillation.sample_relations import RelationalKnowledgeDistillation, SimilarityPreserving
from pipeline.distillation.self_distillation import BeYourOwnTeacher
from pipeline.errors import RecipeError

LAYER = ("stage:last",)
TWICE = ("stage:last", "stage:last")
COMPARING = (SRD(), RelationalKnowledgeDistillation(), SimilarityPreserving(), InfoNce(), CorrelationDistillation())
NORMING = (
    FitNet(student_layers=LAYER, teacher_layers=LAYER),
    KnowledgeReview(student_layers=LAYER, teacher_layers=LAYER, pooled_level=False),
    KnowledgeReview(student_layers=LAYER, teacher_layers=LAYER),
    BeYourOwnTeacher(student_layers=TWICE),
)


def batch_and_given(loss: AnyLoss, num: int, side: int) -> tuple[Batch, Given]:
    num_maps = max(1, len(loss.needs.student_layers))
    maps = [(torch.randn(num, 4, side, side), torch.randn(num, 4, side, side)) for _ in range(num_maps)]
    logits = torch.randn(2, num, 3)
    batch = replace(batch_of(*maps), student=logits[0], teacher=logits[1], index=torch.arange(num))
    return batch, given_of(*[((4, side, side), (4, side, side))] * num_maps)


@pytest.mark.parametrize("loss", [*COMPARING, *NORMING], ids=lambda loss: loss.kind)
def test_one_image_alone_is_refused_and_two_are_not(loss: AnyLoss) -> None:
    (alone, given), (two, _) = (batch_and_given(loss, num, side=1) for num in (1, 2))
    term = loss.build(given)
    with pytest.raises(RecipeError, match=rf"^losses: {loss.kind}: expected at least 2 .*; got 1\. Set batch_size to"):
        term(alone)
    assert term(two).isfinite()


@pytest.mark.parametrize("loss", [NORMING[0], NORMING[1], NORMING[3]], ids=lambda loss: loss.kind)
def test_one_image_of_several_positions_has_batch_statistics(loss: AnyLoss) -> None:
    batch, given = batch_and_given(loss, 1, side=2)
    assert loss.build(given)(batch).isfinite()


@pytest.mark.parametrize("loss", COMPARING[:4], ids=lambda loss: loss.kind)
def test_one_image_in_each_of_two_processes_is_compared(loss: AnyLoss) -> None:
    batch, given = batch_and_given(loss, 2, side=1)
    term: Term = loss.build(given)
    assert values_in_two_processes((term, term), batch) == pytest.approx([term(batch).item()] * 2, rel=1e-5)


def test_dist_without_the_part_that_compares_images_takes_one() -> None:
    loss = CorrelationDistillation(gamma=0.0)
    batch, given = batch_and_given(loss, 1, side=1)
    assert loss.build(given)(batch).isfinite()
