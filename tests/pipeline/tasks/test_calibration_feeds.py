"""Samples of a folder for any model: pixels, layouts, arrays, and what is odd about them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DataError, UsageError
from pipeline.tasks.choose_feeds import Choice, choose_feeds, find_layout
from pipeline.tasks.feeds import Pixels
from targets.target import TensorSpec

PLAIN = Pixels()


def image_input(*shape: int | None, dtype: str = "float32") -> tuple[TensorSpec, ...]:
    return (TensorSpec("image", dtype, shape),)


def write_images(folder: Path, count: int, size: tuple[int, int] = (6, 4)) -> None:
    for number in range(count):
        Image.new("RGB", size, (number, 100, 200)).save(folder / f"{number:03}.png")


def test_a_pixel_becomes_what_was_trained_with(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    pixels = Pixels(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0), order="bgr")
    chosen = choose_feeds(tmp_path, image_input(1, 3, 4, 4), Choice(pixels=pixels))
    blue, green, red = chosen.calibration.sample(0)["image"][0, :, 0, 0]
    assert [blue, green, red] == pytest.approx(
        [(200 / 255 - 0.1) / 0.5, (100 / 255 - 0.2) / 0.25, (0 - 0.3) / 2.0], abs=1e-6
    )


def test_a_model_of_bytes_gets_bytes_in_its_own_layout(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    chosen = choose_feeds(tmp_path, image_input(1, 4, 6, 3, dtype="uint8"), Choice(pixels=PLAIN))
    sample = chosen.calibration.sample(0)["image"]
    assert (sample.dtype, sample.shape) == (np.uint8, (1, 4, 6, 3))
    assert sample[0, 0, 0].tolist() == [0, 100, 200]


def test_pixels_0_to_255_are_bytes_as_floats(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    chosen = choose_feeds(tmp_path, image_input(None, 3, 4, 4), Choice(pixels=Pixels(highest=255)))
    assert chosen.calibration.sample(0)["image"][0, :, 0, 0] == pytest.approx([0, 100, 200])


def test_the_layout_is_told_by_the_shape_or_asked_for() -> None:
    assert find_layout(TensorSpec("x", "float32", (1, 3, 8, 8))) == "nchw"
    assert find_layout(TensorSpec("x", "float32", (1, 8, 8, 1))) == "nhwc"
    with pytest.raises(UsageError, match=r"--layout: expected nchw or nhwc.* both"):
        find_layout(TensorSpec("x", "float32", (1, 3, 8, 3)))
    with pytest.raises(UsageError, match="neither"):
        find_layout(TensorSpec("x", "float32", (1, 7, 8, 8)))


def test_held_out_samples_are_apart_and_the_choice_is_seeded(tmp_path: Path) -> None:
    write_images(tmp_path, 30)
    first = choose_feeds(tmp_path, image_input(1, 3, 4, 4), Choice(samples=10, pixels=PLAIN, seed=1))
    again = choose_feeds(tmp_path, image_input(1, 3, 4, 4), Choice(samples=10, pixels=PLAIN, seed=1))
    other = choose_feeds(tmp_path, image_input(1, 3, 4, 4), Choice(samples=10, pixels=PLAIN, seed=2))
    reds = [
        {round(255 * float(f.sample(i)["image"][0, 0, 0, 0])) for i in range(len(f))}
        for f in (first.calibration, first.held_out, again.calibration, other.calibration)
    ]
    assert (len(reds[0]), len(reds[1]), first.are_apart) == (10, 20, True)
    assert not reds[0] & reds[1]
    assert reds[0] == reds[2] != reds[3]


def test_unreadable_images_are_counted_and_few_are_warned_of(tmp_path: Path) -> None:
    write_images(tmp_path, 2)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    chosen = choose_feeds(tmp_path, image_input(1, 3, 4, 4), Choice())
    words = " ".join(chosen.warnings)
    assert "1 of 3 samples cannot be used" in words
    assert "2 samples to calibrate on" in words
    assert "nobody said how pixels become numbers" in words
    assert "parity is judged on the samples that the ranges come from" in words


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "expected images or arrays .* got 0 other files"),
        ({"notes.txt": b"hello"}, "got 1 other files"),
        ({"a.jpg": b"no image", "b.jpg": b"none"}, r"expected an image; .* \(so are all 2 samples\)"),
        ({"a.npz": b"no archive"}, "expected arrays that NumPy wrote"),
    ],
)
def test_a_folder_without_samples_is_refused(tmp_path: Path, files: dict[str, bytes], words: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        choose_feeds(tmp_path, image_input(1, 3, 4, 4), Choice())
    with pytest.raises(DataError, match="got nothing there; check --data"):
        choose_feeds(tmp_path / "missing", image_input(1, 3, 4, 4), Choice())


def test_open_sizes_of_an_image_must_be_told(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    with pytest.raises(UsageError, match=r"--shape: .* for example --shape image=1x3x320x320; got none"):
        choose_feeds(tmp_path, image_input(None, 3, None, None), Choice())


def test_images_do_not_feed_a_model_of_two_inputs(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    with pytest.raises(UsageError, match=r"a model with one input; got 2: a, b; put .npy or .npz files"):
        choose_feeds(tmp_path, [TensorSpec(name, "float32", (1, 3, 4, 4)) for name in "ab"], Choice())


def test_an_input_without_samples_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", rate=np.full(3, 16000))
    with pytest.raises(UsageError, match="expected samples on the first axis of every input; got a scalar"):
        choose_feeds(tmp_path, (TensorSpec("rate", "int64", ()),), Choice())


def test_arrays_feed_models_of_several_inputs_by_name(tmp_path: Path) -> None:
    inputs = (TensorSpec("a/b:0", "float32", (1, 2)), TensorSpec("c", "int64", (None, 3)))
    np.save(tmp_path / "a_b_0.npy", np.arange(6, dtype=np.float64).reshape(3, 2))
    np.save(tmp_path / "c.npy", np.arange(9, dtype=np.int32).reshape(3, 3))
    sample = choose_feeds(tmp_path, inputs, Choice()).calibration.sample(1)
    assert sample["a/b:0"].tolist() == [[2, 3]]
    assert sample["c"].tolist() == [[3, 4, 5]]
    assert {name: array.dtype.name for name, array in sample.items()} == {"a/b:0": "float32", "c": "int64"}


def test_a_sample_that_is_not_finite_is_left_out_and_named(tmp_path: Path) -> None:
    values = np.zeros((20, 2), np.float32)
    values[7, 1] = np.nan
    np.savez(tmp_path / "samples.npz", x=values)
    chosen = choose_feeds(tmp_path, (TensorSpec("x", "float32", (1, 2)),), Choice())
    assert "1 of 20 samples cannot be used" in chosen.warnings[0]
    assert "NaN or infinity in sample 7" in chosen.warnings[0]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.zeros((2, 2), np.float32)}, "expected an array for the input 'x'; got y"),
        ({"x": np.zeros((2, 3), np.float32)}, "expected float32 of shape Nx2, N samples; got float32 of shape 2x3"),
        ({"x": np.zeros((2, 2), np.complex64)}, "expected float32 of shape Nx2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "samples.npz", **arrays)
    with pytest.raises(DataError, match=words):
        choose_feeds(tmp_path, (TensorSpec("x", "float32", (1, 2)),), Choice())
