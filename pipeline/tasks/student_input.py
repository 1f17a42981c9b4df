"""What a student sees where that is less than its teacher sees: grey for colour, low for high resolution.

Distillation across modalities (Gupta et al. 2015, arXiv 1507.00448): the teacher's images and the student's are the
same views of the same images, and the student's are made from the teacher's, byte by byte.
"""

import hashlib
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pipeline.canonical import canonical, canonical_sha256
from pipeline.errors import RecipeError
from pipeline.parts import RecipePart
from pipeline.tasks.dataset import Dataset, Split
from pipeline.tasks.loading import load_once

PART = 4096
"""Images reduced at once."""
LUMA = (299, 587, 114)
"""Thousandths of red, green and blue (ITU-R BT.601)."""


class Reduction(RecipePart):
    """How the teacher's images become the student's."""

    grey: bool = False
    """One channel, by BT.601, for three."""
    shrink: int = Field(default=1, ge=1, le=16)
    """Each side divided by this: every block of so many pixels square becomes its mean."""

    def of(self, images_NHWC: Tensor) -> Tensor:
        """Return uint8[N, H / shrink, W / shrink, 1 or C] of uint8[N, H, W, C], rounded to the nearest.

        Raises:
            RecipeError: sides that cannot be divided, or grey of images without three channels.
        """
        num, height, width, channels = images_NHWC.shape
        if height % self.shrink or width % self.shrink or (self.grey and channels != 3):
            raise RecipeError(
                f"task.student_sees: expected sides that {self.shrink} divides, and three channels for grey; "
                f"got images of {height} x {width} pixels and {channels} channels"
            )
        values = images_NHWC.to(torch.int32)
        if self.grey:
            values = (values * torch.tensor(LUMA, dtype=torch.int32, device=values.device)).sum(-1, keepdim=True)
            values = (values + 500) // 1000
        if self.shrink > 1:
            side, area = self.shrink, self.shrink**2
            blocks = values.reshape(num, height // side, side, width // side, side, -1)
            values = (blocks.sum((2, 4)) + area // 2) // area
        return values.to(torch.uint8)


class Reduced(RecipePart):
    """A source of data whose images are reduced; no recipe names it: `task.for_student()` makes it."""

    kind: Literal["reduced"] = "reduced"
    source: RecipePart
    """Where the images come from."""
    reduction: Reduction
    """What becomes of each."""

    def fingerprint(self) -> str:
        """Digest of the source and of the reduction."""
        source = canonical_sha256(canonical(self.source, "source"))
        return hashlib.sha256(f"{source}{self.reduction.model_dump_json()}".encode()).hexdigest()

    def load(self) -> Dataset:
        """Return the source's data with every image reduced.

        Raises:
            RecipeError: the images cannot be reduced so.
        """
        whole = load_once(self.source)
        train, validation, test = (self._reduced(split) for split in (whole.train, whole.validation, whole.test))
        return Dataset(train, validation, test, whole.classes)

    def _reduced(self, split: Split) -> Split:
        parts = [self.reduction.of(part).numpy() for part in torch.split(torch.from_numpy(split.images), PART)]
        return Split(np.concatenate(parts), split.labels)
