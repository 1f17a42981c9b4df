"""What losses that compare images, or take their statistics, ask of a batch; said before torch fails or 0 is taught.

Rule: one image alone has nothing to be compared with, and a batch statistic of one value is that value.
"""

from torch import Tensor

from pipeline.errors import RecipeError


def expect_several_images(kind: str, features: Tensor) -> None:
    """Check that there are other images to compare each with, in the batch [B, ...] of all processes.

    Raises:
        RecipeError: there is one alone.
    """
    _expect_two(kind, len(features), "images in the batch of all processes, which it compares")


def expect_statistics(kind: str, maps: Tensor) -> None:
    """Check that batch normalization has several values a channel in maps [B, C, H, W].

    Raises:
        RecipeError: there is one.
    """
    _expect_two(
        kind,
        maps.shape[0] * maps.shape[2:].numel(),
        "values a channel in the batch of each process, for its batch statistics",
    )


def _expect_two(kind: str, num: int, what: str) -> None:
    if num < 2:
        raise RecipeError(
            f"losses: {kind}: expected at least 2 {what}; got {num}. "
            "Set batch_size to at least 2 images for each process, or drop the loss"
        )
