"""scikit-learn's bundled handwritten digits: 1,797 images of 8x8 pixels, no download."""

from typing import Literal

import numpy as np
from sklearn.datasets import load_digits

from pipeline.parts import RecipePart
from pipeline.tasks.dataset import Cut, Dataset, Split, stratified_cut


class Digits(RecipePart):
    """Handwritten digits, 8x8 grey, ten classes; a held-out part of them is the test set."""

    kind: Literal["digits"] = "digits"
    test: Cut = Cut(share=0.2)
    """The held-out part: a fifth, seed 0, unless the recipe says otherwise."""
    validation: Cut = Cut()
    """Cut of what is left, for choices."""

    def load(self) -> Dataset:
        """Return the images with values 0..16 spread over 0..255."""
        bunch = load_digits()
        images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
        rest, test = stratified_cut(Split(images, bunch.target.astype(np.int64)), self.test.share, self.test.seed)
        train, validation = stratified_cut(rest, self.validation.share, self.validation.seed)
        return Dataset(train, validation, test, tuple(map(str, bunch.target_names)))
