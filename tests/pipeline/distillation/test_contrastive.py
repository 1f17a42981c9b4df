import logging
import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from feature_batches import given_of
from processes import values_in_two_processes
from torch import Tensor, nn

from pipeline.distillation.contrastive import ContrastiveRepresentationDistillation, InfoNce, draw_images
from pipeline.distillation.loss import Batch
from pipeline.errors import RecipeError

CRD = ContrastiveRepresentationDistillation(dimensions=8, num_negatives=4)
LABELS = torch.tensor([0, 2, 1, 2, 1, 0])
GIVEN = replace(given_of(((3, 2, 2), (4, 2, 2))), labels=LABELS)


def built(loss: ContrastiveRepresentationDistillation | InfoNce, labels: Tensor = LABELS) -> nn.Module:
    torch.manual_seed(0)
    return loss.build(replace(GIVEN, labels=labels)).double()


def make_batch(seed: int = 0, num: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(num, c, 2, 2, generator=generator, dtype=torch.float64) for c in (3, 4))
    return Batch(
        student=torch.zeros(num, 3),
        teacher=None,
        labels=LABELS[:num],
        student_features=(student.requires_grad_(),),
        teacher_features=(teacher,),
        index=torch.arange(num),
    )


def test_images_are_drawn_none_twice_classes_in_proportion_and_each_as_likely() -> None:
    labels = torch.tensor([0] * 10 + [1] * 30 + [2] * 20)[torch.randperm(60)]
    torch.manual_seed(0)
    draws = torch.stack([draw_images(labels, 24) for _ in range(1000)])
    assert all(len(set(draw.tolist())) == 24 for draw in draws[:50])
    assert {tuple(labels[draw].bincount().tolist()) for draw in draws} == {(4, 12, 8)}
    shares = draws.flatten().bincount(minlength=60) / 1000
    assert (shares - 0.4).abs().max() < 0.08  # 5 standard deviations of a share
    torch.manual_seed(0)
    assert torch.equal(draw_images(labels, 24), draws[0])


def test_an_image_is_told_from_its_own_row_and_those_of_other_classes() -> None:
    batch = make_batch(num=1)  # image 0 of class 0, as is image 5

    def value_with(*rows: int) -> float:
        term = built(CRD)
        term(make_batch())  # fixes Z
        term.get_buffer("banks")[:, list(rows)] = 1.0
        value: float = term(batch).item()
        return value

    unchanged = pytest.approx(value_with(), rel=1e-12)
    assert [row for row in range(6) if value_with(row) != unchanged] == [0, 1, 2, 3, 4]


def test_z_is_fixed_by_the_first_batch_and_comes_back_with_the_state() -> None:
    term = built(CRD)
    first, second = make_batch(0), make_batch(1)
    teacher_bank = term.get_buffer("banks")[1].clone()
    anchors = term.get_submodule("student")(first.student_features[0])
    is_met = (LABELS[:, None] != LABELS) | torch.eye(6, dtype=torch.bool)
    z = 6 * torch.exp(anchors @ teacher_bank.T / 0.07)[is_met].mean()
    term(first)
    assert term.get_buffer("log_z")[0].item() == pytest.approx(z.log().item(), rel=1e-9)
    fixed = term.get_buffer("log_z").clone()
    again = built(CRD)
    again(second)
    again.load_state_dict(term.state_dict())
    again(second)
    assert torch.equal(again.get_buffer("log_z"), fixed)


def test_a_bank_moves_where_its_image_was_met() -> None:
    term = built(CRD)
    batch = replace(make_batch(num=2), index=torch.tensor([4, 1]))
    before = term.get_buffer("banks").clone()
    embedding = term.get_submodule("teacher")(batch.teacher_features[0])
    term(batch).backward()
    after = term.get_buffer("banks")
    mean = 0.5 * before[1, 4] + 0.5 * embedding[0]
    torch.testing.assert_close(after[1, 4], mean / mean.norm())
    assert torch.equal(after[:, [0, 2, 3, 5]], before[:, [0, 2, 3, 5]])


def test_one_class_leaves_no_negatives() -> None:
    with pytest.raises(RecipeError, match=r"crd: expected training images of at least two classes.*Use info_nce"):
        built(CRD, torch.zeros(6, dtype=torch.int64))


def test_fewer_negatives_than_asked_for_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        built(ContrastiveRepresentationDistillation())
    assert "num_negatives is 16384, but the data has only 4 images outside of its largest class" in caplog.text


def test_more_than_one_pair_of_layers_is_refused() -> None:
    two = ("stage:1", "stage:2")
    given = given_of(((3, 2, 2), (4, 2, 2)), ((3,), (4,)))
    with pytest.raises(RecipeError, match=r"info_nce: expected one of student_layers.*name the loss once for each"):
        InfoNce(student_layers=two, teacher_layers=two).build(given)


def test_info_nce_of_images_that_are_all_alike_is_the_logarithm_of_their_number() -> None:
    batch = make_batch()
    alike = replace(batch, teacher_features=(batch.teacher_features[0][:1].expand(6, -1, -1, -1),))
    alike = replace(alike, student_features=(batch.student_features[0][:1].expand(6, -1, -1, -1),))
    assert built(InfoNce())(alike).item() == pytest.approx(math.log(6), rel=1e-12)


@pytest.mark.parametrize("loss", [CRD, InfoNce()], ids=["crd", "info_nce"])
def test_two_processes_tell_images_of_the_whole_batch_apart(
    loss: ContrastiveRepresentationDistillation | InfoNce,
) -> None:
    term, batch = built(loss), make_batch()
    processes = (deepcopy(term), deepcopy(term))
    values = values_in_two_processes(processes, batch)
    assert values == pytest.approx([term(batch).item()] * 2, rel=1e-12)
    for name, value in term.named_buffers():
        torch.testing.assert_close([process.get_buffer(name) for process in processes], [value, value])
