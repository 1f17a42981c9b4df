"""What to doubt about a calibration, in words: the images, their normalization, the tensors. NumPy, Python 3.8.

Rule: a caution says what was seen and what to do; the caller shows it. None is an error.
"""

from __future__ import annotations

from typing import List, Optional, Sequence

import numpy as np

from calibration.outliers import TensorFacts

FEWEST_IMAGES = 16
"""Fewer leave the ranges to chance."""
FAR_OUTLIER = 10.0
"""A largest size this many times the 99.99th percentile leaves most codes to a ten-thousandth of the values."""
SHOWN = 3
"""Tensors named in one caution."""
FEWEST_TO_JUDGE_SPREAD = 8
"""Fewer images do not tell how much images differ; the training's own spread then bounds it."""
STANDARD_ERRORS = 5.0
"""A difference within this many is explained by the number of images."""
HARMLESS = 0.1
"""A difference within this share of the training's spread is never told: grids do not notice it."""


def describe_images(num_images: int, labels: Optional[np.ndarray] = None) -> List[str]:
    """Return cautions about a calibration set: too few images, or one class alone (labels int64[num_images])."""
    found = []
    if num_images < FEWEST_IMAGES:
        found.append(
            "calibration: {} image{}: expected at least {}; ranges of so few are chance. Give more samples".format(
                num_images, "" if num_images == 1 else "s", FEWEST_IMAGES
            )
        )
    if labels is not None and num_images > 1 and len(np.unique(labels)) == 1:
        found.append(
            "calibration: all {} images are of one class ({}): expected several; what other classes excite is cut. "
            'Choose samples by "balanced" or "random"'.format(num_images, labels[0])
        )
    return found


def describe_tensors(facts: Sequence[TensorFacts]) -> List[str]:
    """Return cautions about tensors that never change, far outliers, and channels that are always zero."""
    constant = [tensor for tensor in facts if tensor.is_constant]
    far = [tensor for tensor in facts if tensor.outlier_ratio > FAR_OUTLIER]
    dead = [tensor for tensor in facts if tensor.zero_channels and not tensor.is_constant]
    found = []
    if constant:
        named = _name(["{} = {:.6g}".format(tensor.name, tensor.low) for tensor in constant])
        found.append(
            "calibration: the same value everywhere in {}: expected activations that depend on the image. "
            "Look at the images and at the model before it".format(named)
        )
    if far:
        named = _name(["{} ({:.0f} times)".format(tensor.name, tensor.outlier_ratio) for tensor in far])
        found.append(
            "calibration: the largest value is far beyond the 99.99th percentile in {}: with min_max most codes stay "
            "unused. Try the method mean_squared_error or percentile, or keep the layer in float".format(named)
        )
    if dead:
        named = _name(
            ["{} ({} of {})".format(tensor.name, len(tensor.zero_channels), tensor.num_channels) for tensor in dead]
        )
        found.append(
            "calibration: channels that are zero for every image in {}: they cost time and say nothing. "
            "Calibrate on more images, or make the layer narrower".format(named)
        )
    return found


def check_normalization(images_NCHW: np.ndarray, expected_mean: np.ndarray, expected_std: np.ndarray) -> List[str]:
    """Return a caution a statistic in which normalized images differ from the training's by more than chance.

    An image is one draw: its pixels are not independent, so the standard error comes from the spread between images.
    Told is a mean or a variance that is off by more than 5 standard errors and a tenth of the training's.

    Args:
        images_NCHW: as the model gets them, float[N, C, H, W].
        expected_mean: of the normalized training images, float[C].
        expected_std: the same.
    """
    pixels = np.asarray(images_NCHW, np.float64).reshape(len(images_NCHW), images_NCHW.shape[1], -1)
    means = pixels.mean(axis=2)
    variances = ((pixels - means.mean(axis=0)[:, None]) ** 2).mean(axis=2)
    expected_mean, expected_std = np.asarray(expected_mean, np.float64), np.asarray(expected_std, np.float64)
    if len(pixels) < FEWEST_TO_JUDGE_SPREAD:
        return _compare("mean", means.mean(axis=0), expected_mean, expected_std / len(pixels) ** 0.5, expected_std)
    error_of_mean = means.std(axis=0, ddof=1) / len(pixels) ** 0.5
    error_of_variance = variances.std(axis=0, ddof=1) / len(pixels) ** 0.5
    variance = variances.mean(axis=0) + error_of_mean**2  # the mean that it is taken around came from the same images
    return [
        *_compare("mean", means.mean(axis=0), expected_mean, error_of_mean, expected_std),
        *_compare("variance", variance, expected_std**2, error_of_variance, expected_std**2),
    ]


def _compare(what: str, got: np.ndarray, expected: np.ndarray, error: np.ndarray, spread: np.ndarray) -> List[str]:
    differing = np.flatnonzero(np.abs(got - expected) > STANDARD_ERRORS * error + HARMLESS * spread)
    if not len(differing):
        return []
    return [
        "calibration: {} of the normalized images, channels {}: expected {} as in training; got {}. "
        "Look at mean, std and the order of channels".format(what, _list(differing), _list(expected), _list(got))
    ]


def _list(values: np.ndarray) -> str:
    return "[{}]".format(", ".join("{:.3g}".format(value) for value in values))


def _name(words: Sequence[str]) -> str:
    more = " and {} more".format(len(words) - SHOWN) if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more
