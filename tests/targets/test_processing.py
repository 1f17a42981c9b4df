import numpy as np
import pytest

from targets.processing import Processing
from targets.target import TensorSpec

CIFAR = Processing(scale=(1 / 51, 1 / 52, 1 / 53), bias=(-1.0, -2.0, -3.0))


def test_bytes_become_scaled_and_shifted_channels_first() -> None:
    images_NHWC = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    tensor = CIFAR.preprocess(images_NHWC)
    assert (tensor.shape, tensor.dtype, tensor.flags.c_contiguous) == ((2, 3, 5, 4), np.float32, True)
    for channel in range(3):
        expected = images_NHWC[..., channel].astype(np.float32) * np.float32(CIFAR.scale[channel])
        np.testing.assert_array_equal(tensor[:, channel], expected + np.float32(CIFAR.bias[channel]))


def test_preprocessing_in_place_gives_the_same_bytes() -> None:
    images_NHWC = np.random.default_rng(1).integers(0, 256, (1, 6, 6, 3), dtype=np.uint8)
    out = np.full((1, 3, 6, 6), 7, np.float32)
    assert CIFAR.preprocess(images_NHWC, out=out) is out
    np.testing.assert_array_equal(out, CIFAR.preprocess(images_NHWC))


def test_logits_become_the_top_label_and_its_softmax() -> None:
    logits_NK = np.array([[0.0, np.log(3.0)], [1000.0, 0.0]], np.float32)
    labels, scores = CIFAR.postprocess(logits_NK)
    assert labels.tolist() == [1, 0]
    np.testing.assert_allclose(scores, [0.75, 1.0], rtol=1e-6)
    assert Processing((1.0,), (0.0,), "none").postprocess(logits_NK)[1].tolist() == [np.float32(np.log(3.0)), 1000.0]


def test_json_restores_the_constants() -> None:
    assert Processing.from_json(CIFAR.to_json()) == CIFAR


def test_a_model_that_takes_bytes_gets_a_copy_of_them() -> None:
    bytes_only = CIFAR.fed_to(TensorSpec("image", "uint8", (1, 4, 4, 3)))
    images_NHWC = np.random.default_rng(2).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    tensor = bytes_only.preprocess(images_NHWC)
    np.testing.assert_array_equal(tensor, images_NHWC)
    assert not np.shares_memory(tensor, images_NHWC)  # chunks are refilled in place
    out = np.zeros_like(images_NHWC)
    np.testing.assert_array_equal(bytes_only.preprocess(images_NHWC, out=out), images_NHWC)
    assert Processing.from_json(bytes_only.to_json()) == bytes_only
    assert bytes_only.fed_to(TensorSpec("image", "float32", (1, 3, 4, 4))) == CIFAR


def test_images_of_another_layout_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(N, H, W, 3\); got float32 \(1, 3, 4, 4\)"):
        CIFAR.preprocess(np.zeros((1, 3, 4, 4), np.float32))
