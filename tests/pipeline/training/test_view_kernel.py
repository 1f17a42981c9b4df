"""Batches by the kernel of views equal torch's to the bit."""

from collections.abc import Iterator

import pytest
import torch

from pipeline.tasks.classification import Normalization, Views
from pipeline.training.kernels.library import find_library
from pipeline.training.views import ViewedImages

pytestmark = pytest.mark.skipif(
    find_library() is None, reason="this machine has no training kernels (no compiler, or Linux)"
)
MEAN, STD = (0.1, 0.5, 0.9, 0.3), (0.2, 0.3, 0.4, 0.7)
CASES = {  # height, width, channels, views
    "plain": (8, 8, 3, Views()),
    "mirrored": (9, 6, 3, Views(flip=True)),
    "shifted": (6, 11, 1, Views(padding=4)),
    "shifted and mirrored": (32, 32, 3, Views(padding=4, flip=True)),
    "one channel, mirrored": (28, 27, 1, Views(padding=4, flip=True)),
    "four channels": (5, 7, 4, Views(padding=1, flip=True)),
    "one pixel": (1, 1, 1, Views(padding=4, flip=True)),
}


@pytest.fixture(params=[1, 2], ids="{} threads".format)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_batch_is_that_of_torch_to_the_bit(case: tuple[int, int, int, Views], threads: int) -> None:
    """A colour of ones changes no byte (differences of 127.5 are exact), and images with a colour go by torch."""
    height, width, channels, views = case
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (40, height, width, channels), dtype=torch.uint8, generator=generator)
    images = ViewedImages(pixels, views, Normalization(mean=MEAN[:channels], std=STD[:channels]).processing())
    index = torch.randint(40, (300,), generator=generator)
    shown = torch.randint(views.count, (300,), generator=generator)
    unchanged = torch.ones(300, 2)
    for chosen in (shown, None):
        ours, theirs = images.batch(index, chosen), images.batch(index, chosen, unchanged)
        assert torch.equal(ours, theirs)
        assert ours.dtype == torch.float32
        assert ours.is_contiguous(memory_format=torch.channels_last)


def test_every_other_row_of_an_index_may_be_asked_for() -> None:
    """An index need not lie in one piece."""
    pixels = torch.randint(256, (40, 6, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = ViewedImages(pixels, Views(flip=True), Normalization(mean=MEAN[:3], std=STD[:3]).processing())
    index, shown = torch.arange(40), torch.arange(40) // 5 % 2
    assert torch.equal(images.batch(index[::2], shown[::2]), images.batch(index, shown)[::2])
