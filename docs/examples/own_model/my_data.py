"""Your own data. `recipe.toml` names a function of this file, as `./my_data.py:load_few_digits`.

The function returns three disjoint splits: images uint8 [N, height, width, channels] and classes int64 [N]. Training
uses `train`, choices (calibration, the accuracy shown while training) use `validation`, the gate alone uses `test`.
"""

import numpy as np
from sklearn.datasets import load_digits

from pipeline.tasks.dataset import Dataset, Split, stratified_cut


def load_few_digits(num_classes: int = 4, test_share: float = 0.2, seed: int = 0) -> Dataset:
    """Return scikit-learn's handwritten digits below `num_classes`: 8x8 pixels, grey, about 180 a class."""
    bunch = load_digits(n_class=num_classes)
    pixels_NHWC = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    everything = Split(pixels_NHWC, bunch.target.astype(np.int64))
    rest, test = stratified_cut(everything, test_share, seed)
    train, validation = stratified_cut(rest, 0.1, seed)
    return Dataset(train, validation, test, classes=tuple(map(str, range(num_classes))))
