"""Views by number, schedules by seed, and the teacher's outputs that belong to them."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import DataError
from pipeline.models.resnet import ResNet
from pipeline.tasks.classification import Normalization, Views
from pipeline.training.features import with_features
from pipeline.training.teacher_outputs import OutputsFolder, TeacherOutputs, fast_inference
from pipeline.training.teachers import Taught
from pipeline.training.views import ViewedImages, ViewSchedule

IMAGES = np.random.default_rng(0).integers(1, 256, (150, 8, 6, 3), dtype=np.uint8)
PROCESSING = Normalization(mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4)).processing()
VIEWS = Views(padding=2, flip=True)


def view_by_numpy(image: np.ndarray, view: int) -> np.ndarray:
    """Return view `view` of an image as its documentation says, normalized, CHW."""
    side = 2 * VIEWS.padding + 1
    padded = np.pad(image, ((VIEWS.padding,) * 2, (VIEWS.padding,) * 2, (0, 0)))
    row, column = divmod(view % side**2, side)
    crop = padded[row : row + 8, column : column + 6]
    crop = crop[:, ::-1] if view >= side**2 else crop
    normalized = (crop / 255 - np.array([0.1, 0.5, 0.9])) / np.array([0.2, 0.3, 0.4])
    return normalized.transpose(2, 0, 1)


@pytest.fixture
def images() -> ViewedImages:
    return ViewedImages(torch.from_numpy(IMAGES), VIEWS, PROCESSING)


def test_every_view_is_the_crop_and_mirror_that_its_number_says(images: ViewedImages) -> None:
    views = torch.arange(VIEWS.count)
    index = views % len(IMAGES)
    batch = images.batch(index, views).numpy()
    expected = np.stack([view_by_numpy(IMAGES[i], int(v)) for i, v in zip(index.tolist(), views.tolist(), strict=True)])
    np.testing.assert_allclose(batch, expected, atol=1e-5)  # float32 against float64
    assert VIEWS.count == 50


def test_the_plain_view_is_what_a_device_sees(images: ViewedImages) -> None:
    np.testing.assert_allclose(images.batch(torch.arange(9)).numpy(), PROCESSING.preprocess(IMAGES[:9]), atol=1e-6)


def test_without_views_an_image_is_only_itself() -> None:
    images = ViewedImages(torch.from_numpy(IMAGES), Views(), PROCESSING)
    assert Views().count == 1
    np.testing.assert_allclose(
        images.batch(torch.tensor([3]), torch.tensor([0])).numpy(), PROCESSING.preprocess(IMAGES[3:4]), atol=1e-6
    )


def test_every_image_meets_every_view_once() -> None:
    schedule = ViewSchedule(VIEWS, len(IMAGES), seed=0)
    columns = torch.stack([schedule.column(column).views for column in range(VIEWS.count)])
    assert torch.equal(columns.sort(dim=0).values, torch.arange(VIEWS.count)[:, None].expand(-1, len(IMAGES)))
    assert torch.equal(schedule.column(VIEWS.count).views, schedule.column(0).views)
    assert len(schedule.column(0).views.unique()) > VIEWS.count / 2  # one column shows many views


def test_a_schedule_follows_its_own_seed_alone() -> None:
    torch.manual_seed(1)
    first = ViewSchedule(VIEWS, 20, seed=0).column(3).views
    torch.manual_seed(2)
    assert torch.equal(ViewSchedule(VIEWS, 20, seed=0).column(3).views, first)
    assert not torch.equal(ViewSchedule(VIEWS, 20, seed=1).column(3).views, first)


class Counting(nn.Module):
    """A teacher whose logits tell the picture: means of four quarters; counts the images that it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        self.asked: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if len(x):  # not traceable, so that calls are counted
            self.asked.append(len(x))
        return self.factor * nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def make_outputs(folder: Path, teacher: nn.Module, images: ViewedImages, name: str = "teacher") -> TeacherOutputs:
    schedule = ViewSchedule(VIEWS, len(images), seed=0)
    return TeacherOutputs(OutputsFolder(folder), {"teacher": name}, teacher, images, schedule)


def asked(outputs: TeacherOutputs) -> int:
    return sum(outputs._teacher.network.asked)  # the copy that is called


@pytest.mark.parametrize("column", [0, 1, 17])
def test_row_i_belongs_to_image_i_in_the_view_of_the_schedule(
    images: ViewedImages, tmp_path: Path, column: int
) -> None:
    make_outputs(tmp_path, Counting(), images).column(column)
    (kept,) = make_outputs(tmp_path, Counting(), images).column(column)  # from disk
    logits = kept.numpy()
    shown = ViewSchedule(VIEWS, len(images), seed=0).column(column).views
    views = np.stack([view_by_numpy(IMAGES[i], int(view)) for i, view in enumerate(shown)])
    expected = views.reshape(len(views), 3, 2, 4, 2, 3).mean(axis=(3, 5)).reshape(len(views), -1)
    np.testing.assert_allclose(logits, expected, atol=0.05)  # bfloat16 has 8 bits, of values up to 4
    wrong = np.abs(np.roll(logits, 1, axis=0) - expected).max(axis=1)
    assert (wrong > 0.05).all()  # no other row would pass


def test_outputs_are_those_of_the_live_teacher(images: ViewedImages, tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = ResNet(depth=8, width=8).build(3, 10).eval()
    schedule = ViewSchedule(VIEWS, len(images), seed=0)
    with torch.inference_mode():
        live, _ = fast_inference(teacher)(
            images.batch(torch.arange(125), schedule.column(2).views[:125]).to(torch.bfloat16)
        )
        precise = teacher(images.batch(torch.arange(125), schedule.column(2).views[:125]))
    kept = make_outputs(tmp_path, teacher, images).column(2)[0][:125]
    assert torch.allclose(
        kept, live.float(), rtol=2**-11, atol=1e-5
    )  # fp16 keeps what bf16 has, and rounds tiny values
    assert (kept - precise).abs().max() < 0.1 * precise.std()  # bf16 in 9 layers
    assert len(kept.unique(dim=0)) > 100


def test_a_column_is_computed_once(images: ViewedImages, tmp_path: Path) -> None:
    outputs = make_outputs(tmp_path, Counting(), images)
    (first,), (again,) = outputs.column(5), outputs.column(5)
    assert asked(outputs) == len(images)
    assert torch.equal(first, again)
    later = make_outputs(tmp_path, Counting(), images)
    assert torch.equal(later.column(5)[0], first)
    assert asked(later) == 0


def test_another_teacher_has_other_columns(images: ViewedImages, tmp_path: Path) -> None:
    make_outputs(tmp_path, Counting(), images).column(0)
    other = make_outputs(tmp_path, Counting(), images, name="other")
    other.column(0)
    assert asked(other) == len(images)


@pytest.mark.parametrize("damage", ["cut short", "garbage", "one byte", "other column", "other teacher", "other name"])
def test_a_column_that_is_not_right_is_computed_again_with_a_warning(
    images: ViewedImages, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    outputs = make_outputs(tmp_path, Counting(), images)
    (expected,) = outputs.column(1)
    path = outputs.tables[0].folder / "00001.safetensors"
    content = path.read_bytes()
    other = make_outputs(tmp_path, Counting(), images, name="other")
    other.column(1)
    outputs.column(2)
    changed = {"cut short": content[:-5], "garbage": b"garbage", "one byte": content[:-1] + bytes([content[-1] ^ 1])}
    if damage in changed:
        path.write_bytes(changed[damage])
    elif damage == "other name":
        path.write_bytes(content.replace(b'"values"', b'"volues"'))
    else:
        shutil.copy(
            outputs.tables[0].folder / "00002.safetensors"
            if damage == "other column"
            else other.tables[0].folder / path.name,
            path,
        )
    with caplog.at_level(logging.WARNING):
        assert torch.equal(outputs.column(1)[0], expected)
    assert len(caplog.records) == 1
    assert "computed again" in caplog.text
    caplog.clear()
    outputs.column(1)
    assert not caplog.records


ENDLESS = Views(padding=1, flip=True, mixup=0.4, colour=0.3, in_use=3)


def test_mixing_and_colour_come_again_with_their_column() -> None:
    schedule, again = (ViewSchedule(ENDLESS, len(IMAGES), seed=0) for _ in range(2))
    first, same, other = schedule.column(4), again.column(4), again.column(5)
    for name in ("views", "partners", "share", "colour"):
        assert torch.equal(getattr(first, name), getattr(same, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
    assert [schedule.number(epoch) for epoch in range(5)] == [0, 1, 2, 0, 1]
    assert ViewSchedule(ENDLESS.model_copy(update={"in_use": None}), 5, seed=0).number(700) == 700


def test_a_mixed_image_is_its_own_view_and_its_partners_by_their_shares() -> None:
    images = ViewedImages(torch.from_numpy(IMAGES), ENDLESS, PROCESSING)
    column = ViewSchedule(ENDLESS.model_copy(update={"colour": 0.0}), len(IMAGES), seed=0).column(1)
    assert column.partners is not None
    assert column.share is not None
    assert sorted(column.partners.tolist()) == list(range(len(IMAGES)))  # each image is a partner once
    assert column.share.min() >= 0.5
    index = torch.tensor([3, 77])
    own, partner = (images.batch(rows, column.views[rows]) for rows in (index, column.partners[index]))
    share = column.share[index].view(-1, 1, 1, 1)
    torch.testing.assert_close(images.shown(index, column), share * own + (1 - share) * partner)


def test_colour_stays_within_bytes_and_turns_about_the_middle() -> None:
    plain = Normalization(mean=(0.0,) * 3, std=(1.0,) * 3).processing()
    images = ViewedImages(torch.full((2, 4, 4, 3), 200, dtype=torch.uint8), Views(), plain)
    colour = torch.tensor([[1.2, 0.9], [2.0, 1.4]])
    values = images.batch(torch.arange(2), None, colour) * 255
    assert values[0].unique().item() == pytest.approx((200 - 127.5) * 1.2 + 127.5 * 0.9, abs=1e-3)
    assert values[1].unique().item() == pytest.approx(255, abs=1e-3)


def test_the_teacher_sees_the_mixture_that_the_student_sees(tmp_path: Path) -> None:
    images = ViewedImages(torch.from_numpy(IMAGES), ENDLESS, PROCESSING)
    schedule = ViewSchedule(ENDLESS, len(IMAGES), seed=0)
    (kept,) = TeacherOutputs(OutputsFolder(tmp_path), {}, Counting(), images, schedule).column(2)
    shown = images.shown(torch.arange(len(IMAGES)), schedule.column(2))
    expected = nn.functional.adaptive_avg_pool2d(shown, 2).flatten(1)
    assert (kept - expected).abs().max() < 0.05  # bfloat16
    assert (kept.roll(1, 0) - expected).abs().amax(dim=1).min() > 0.05


def test_means_of_features_have_a_table_of_their_own(images: ViewedImages, tmp_path: Path) -> None:
    teacher = ResNet(depth=8, width=8).build(3, 10).eval()
    schedule = ViewSchedule(VIEWS, len(images), seed=0)
    layers = ("layer3.0.relu2",)
    (logits,) = make_outputs(tmp_path, teacher, images).column(0)
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*.safetensors")}
    both = TeacherOutputs(OutputsFolder(tmp_path), {"teacher": "teacher"}, teacher, images, schedule, layers)
    again, means = both.column(0)
    assert torch.equal(again, logits)
    assert all(path.stat().st_ino == inode for path, inode in before.items())  # logits were not written anew
    with torch.no_grad():
        _, (feature,) = with_features(teacher, layers, who="test")(
            images.batch(torch.arange(len(images)), schedule.column(0).views)
        )
    assert (means - feature.mean((2, 3))).abs().max() < 0.05 * feature.std()


class Float32Inside(nn.Module):
    """A teacher that normalizes in float32, whatever comes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear(self.norm(self.conv(x).float()).mean((2, 3)))
        return result


def test_a_teacher_that_goes_back_to_float32_on_its_way_teaches(images: ViewedImages, tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = Float32Inside().eval()
    schedule = ViewSchedule(VIEWS, len(images), seed=0)
    (kept,) = make_outputs(tmp_path, teacher, images).column(0)
    with torch.no_grad():
        precise = teacher(images.batch(torch.arange(len(images)), schedule.column(0).views))
    assert (kept - precise).abs().max() < 0.05 * precise.std()


def test_a_teacher_that_overflows_says_so(images: ViewedImages, tmp_path: Path) -> None:
    teacher = Counting()
    teacher.factor.data.fill_(1e6)
    with pytest.raises(DataError, match=r"the teacher's logits: expected finite values below 65504; got .* Check its"):
        make_outputs(tmp_path, teacher, images).column(0)


def test_several_teachers_agree_by_their_mean_probability() -> None:
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    taught = Taught((logits[0], logits[1]), ())
    torch.testing.assert_close(taught.consensus.softmax(1), logits.softmax(2).mean(0))
    assert torch.equal(Taught((logits[0],), ()).consensus, logits[0])
