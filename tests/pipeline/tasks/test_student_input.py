"""A student that sees less than its teacher: the same views, reduced byte by byte."""

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import RecipeError
from pipeline.tasks.classification import ClassificationTask, Normalization, StudentInput, Views
from pipeline.tasks.digits import Digits
from pipeline.tasks.student_input import Reduction
from pipeline.training.views import ViewedImages

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 12, 3), dtype=np.uint8)
VIEWS = Views(padding=2, flip=True)
GREY = Normalization(mean=(0.5,), std=(0.25,))


def test_grey_is_what_pillow_calls_grey() -> None:
    grey = Reduction(grey=True).of(torch.from_numpy(IMAGES)).numpy()[..., 0]
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in IMAGES])
    assert np.abs(grey.astype(int) - expected).max() <= 1  # Pillow's coefficients have 16 bits
    assert (grey == expected).mean() > 0.99


def test_a_block_becomes_its_mean() -> None:
    shrunk = Reduction(shrink=4).of(torch.from_numpy(IMAGES)).numpy()
    expected = IMAGES.reshape(5, 2, 4, 3, 4, 3).mean(axis=(2, 4))
    assert shrunk.shape == (5, 2, 3, 3)
    assert np.abs(shrunk - expected).max() <= 0.5


def test_a_view_is_cut_before_it_is_reduced() -> None:
    processing = Normalization(mean=(0.5,) * 3, std=(0.25,) * 3).processing()
    whole = ViewedImages(torch.from_numpy(IMAGES), VIEWS, processing)
    seen = ViewedImages(torch.from_numpy(IMAGES), VIEWS, processing, Reduction(shrink=2))
    index, views = torch.arange(5), torch.tensor([0, 7, 24, 31, 49])
    expected = torch.nn.functional.avg_pool2d(whole.batch(index, views), 2)
    assert (seen.batch(index, views) - expected).abs().max() <= 0.51 / 255 / 0.25  # rounded to bytes
    assert seen.batch(index, views).shape == (5, 3, 4, 6)


def test_the_students_task_has_its_own_images_and_normalization() -> None:
    task = ClassificationTask(
        data=Digits(),
        normalization=Normalization(mean=(0.3,), std=(0.37,)),
        student_sees=StudentInput(shrink=2, normalization=GREY),
    )
    own = task.for_student()
    assert own.load().test.images.shape[1:] == (4, 4, 1)
    assert own.normalization == GREY
    assert own.for_student() is own
    assert np.array_equal(own.load().test.labels, task.load().test.labels)
    assert task.load().test.images.shape[1:] == (8, 8, 1)


@pytest.mark.parametrize("reduction", [Reduction(shrink=3), Reduction(grey=True)])
def test_what_cannot_be_reduced_says_so(reduction: Reduction) -> None:
    with pytest.raises(RecipeError, match=r"got images of 8 x 8 pixels and 1 channels"):
        reduction.of(torch.zeros(1, 8, 8, 1, dtype=torch.uint8))
