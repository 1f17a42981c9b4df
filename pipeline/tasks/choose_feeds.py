"""Which samples of a folder a model is calibrated on, and which it is judged on; what is odd about them, in words."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError, UsageError
from pipeline.tasks.feeds import ArrayFeeds, Feeds, ImageFeeds, Layout, Pixels, Row, read_arrays
from pipeline.tasks.images import SUFFIXES
from targets.target import TensorSpec

HELD_OUT = 64
"""Most samples that are held out to judge the quantized model by."""
HELD_OUT_SHARE = 5
"""One in so many is held out, where samples are scarce."""
FEWEST_TO_HOLD_OUT = 20
FEW_SAMPLES = 16
ARRAY_SUFFIXES = {".npy", ".npz"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How samples are chosen and, where they are images, made into tensors."""

    samples: int = 128
    """Most samples to calibrate on."""
    seed: int = 0
    layout: Layout | None = None
    """None: told by the shape of the input."""
    pixels: Pixels | None = None
    """None: nobody said, so bytes become 0..1 and a warning says so."""


@dataclass(frozen=True)
class Chosen:
    """Samples to calibrate on, samples to judge by, and what users should know about them."""

    calibration: Feeds
    held_out: Feeds
    are_apart: bool
    """Whether nothing held out was calibrated on."""
    warnings: tuple[str, ...]


def choose_feeds(folder: Path, inputs: Sequence[TensorSpec], choice: Choice) -> Chosen:
    """Choose samples for a model's inputs out of `folder`, which holds images or .npy and .npz files, by seed.

    Args:
        folder: looked through with all its folders.
        inputs: of the model; open sizes other than the first are resolved already.
        choice: how many, and what becomes of pixels.

    Raises:
        DataError: nothing there fits, or all of it is broken.
        UsageError: the model's input cannot be an image, its layout must be told, or it is a scalar.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of images or arrays; got {_what_is_at(folder)}; check --data")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    arrays = [path for path in files if path.suffix.lower() in ARRAY_SUFFIXES]
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not arrays and not images:
        wanted = ", ".join(sorted(SUFFIXES | ARRAY_SUFFIXES))
        raise DataError(f"{folder}: expected images or arrays ({wanted}); got {len(files)} other files; check --data")
    for spec in inputs:
        if not spec.shape:
            raise UsageError(
                f"input {spec.name!r}: expected samples on the first axis of every input; got a scalar; make it "
                "a constant in the file, or export the model without it"
            )
    warnings: list[str] = []
    if arrays:
        feeds: Feeds = _array_feeds(folder, arrays, tuple(inputs))
        if choice.pixels is not None:
            warnings.append(f"{folder} holds arrays, which go in as they are: settings of pixels do not count")
    else:
        feeds = _image_feeds(images, inputs, choice, warnings)
    shuffled = list(range(len(feeds)))
    random.Random(choice.seed).shuffle(shuffled)
    drawn = _usable(feeds, shuffled, choice.samples + HELD_OUT, warnings)
    num_held_out = _num_held_out(len(drawn), choice.samples)
    calibration = feeds.take(sorted(drawn[: len(drawn) - num_held_out][: choice.samples]))
    held_out = feeds.take(sorted(drawn[len(drawn) - num_held_out :])) if num_held_out else calibration
    warnings.extend(_about_number(len(calibration), num_held_out))
    return Chosen(calibration, held_out, num_held_out > 0, tuple(warnings))


def _what_is_at(path: Path) -> str:
    return "a file" if path.exists() else "nothing there"


def _usable(feeds: Feeds, order: Sequence[int], wanted: int, warnings: list[str]) -> list[int]:
    """Return the first `wanted` samples of `order` that can be read, in that order; a warning counts the others."""
    usable: set[int] = set()
    broken: list[str] = []
    for index in [*sorted(order[:wanted]), *order[wanted:]]:  # in place's order, a file of many samples is read once
        try:
            feeds.sample(index)
            usable.add(index)
        except DataError as error:
            broken.append(str(error))
        if len(usable) == wanted:
            break
    if not usable:
        raise DataError(f"{broken[0]} (so are all {len(broken)} samples)")
    if broken:
        warnings.append(f"{len(broken)} of {len(broken) + len(usable)} samples cannot be used; the first: {broken[0]}")
    return [index for index in order if index in usable]


def _num_held_out(num_usable: int, num_wanted: int) -> int:
    if num_usable < FEWEST_TO_HOLD_OUT:
        return 0
    return min(HELD_OUT, max(num_usable - num_wanted, num_usable // HELD_OUT_SHARE))


def _about_number(num_calibration: int, num_held_out: int) -> list[str]:
    found = []
    if num_calibration == 1:
        found.append("one sample to calibrate on: ranges fit that sample alone, and others will be clipped")
    elif num_calibration < FEW_SAMPLES:
        found.append(f"{num_calibration} samples to calibrate on: ranges are rough; take 100 or more")
    if not num_held_out:
        found.append(
            "parity is judged on the samples that the ranges come from: there are too few to hold some out "
            f"({FEWEST_TO_HOLD_OUT} are enough)"
        )
    return found


def _image_feeds(
    images: Sequence[Path], inputs: Sequence[TensorSpec], choice: Choice, warnings: list[str]
) -> ImageFeeds:
    spec = inputs[0]
    arrays_instead = "put .npy or .npz files named as the inputs into the folder instead"
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        raise UsageError(
            f"--data: images: expected a model with one input; got {len(inputs)}: {names}; {arrays_instead}"
        )
    if len(spec.shape) != 4 or spec.dtype not in ("float32", "float16", "float64", "uint8"):
        raise UsageError(
            f"--data: images: expected an input of 4 dimensions, floats or bytes; got {spec.name!r}, {spec.dtype} "
            f"{spec.shape}; {arrays_instead}"
        )
    layout = choice.layout or find_layout(spec)
    height, width, channels = (spec.shape[i] for i in ((2, 3, 1) if layout == "nchw" else (1, 2, 3)))
    if height is None or width is None:
        raise UsageError(
            f"--shape: expected the sizes that {spec.name!r} leaves open, for example --shape {spec.name}="
            f"{'x'.join(str(size or (1 if axis == 0 else 320)) for axis, size in enumerate(spec.shape))}; got none"
        )
    if channels is None or channels not in (1, 3):
        raise UsageError(
            f"--data: images: expected an input of 1 or 3 channels, read as {layout}; got {spec.name!r} of shape "
            f"{spec.shape}; say --layout, or {arrays_instead}"
        )
    return ImageFeeds(
        name=spec.name,
        dtype=spec.dtype,
        height=height,
        width=width,
        channels=channels,
        layout=layout,
        pixels=_pixels(spec, choice, channels, warnings),
        files=tuple(images),
    )


def find_layout(spec: TensorSpec) -> Layout:
    """Return where the channels of an image input are, by its shape.

    Raises:
        UsageError: both places could be channels, or neither.
    """
    layouts: tuple[Layout, Layout] = ("nchw", "nhwc")
    fitting = [layout for layout, axis in zip(layouts, (1, 3), strict=True) if spec.shape[axis] in (1, 3)]
    if len(fitting) == 1:
        return fitting[0]
    why = "both the second and the last size could be" if fitting else "neither the second nor the last size is"
    raise UsageError(
        f"--layout: expected nchw or nhwc, since the shape of {spec.name!r} does not tell; got none, and of "
        f"{spec.shape} {why} 1 or 3 channels"
    )


def _pixels(spec: TensorSpec, choice: Choice, channels: int, warnings: list[str]) -> Pixels:
    if spec.dtype == "uint8":
        if choice.pixels is not None and (choice.pixels.mean, choice.pixels.std) != (Pixels().mean, Pixels().std):
            warnings.append(f"{spec.name!r} takes bytes: mean and std do not count")
        return choice.pixels or Pixels()
    if choice.pixels is None:
        warnings.append(
            "nobody said how pixels become numbers: bytes / 255, RGB, no mean, no std were assumed. If the model was "
            "trained otherwise, its ranges are wrong: say --mean, --std, --pixels and --channels"
        )
        return Pixels()
    for name, values in (("mean", choice.pixels.mean), ("std", choice.pixels.std)):
        if len(values) not in (1, channels):
            raise UsageError(f"--{name}: expected 1 value or {channels}, one a channel; got {len(values)}")
    return choice.pixels


def _array_feeds(folder: Path, files: Sequence[Path], inputs: tuple[TensorSpec, ...]) -> ArrayFeeds:
    bundles: list[tuple[Path, ...]] = [(path,) for path in files if path.suffix.lower() == ".npz"]
    if not bundles and len(inputs) == 1:
        bundles = [(path,) for path in files]
    elif not bundles:
        named = {path.stem: path for path in files}
        missing = [spec.name for spec in inputs if file_stem(spec.name) not in named]
        if missing:
            raise DataError(
                f"{folder}: expected {file_stem(missing[0])}.npy, the samples of the input {missing[0]!r}; got "
                f"{', '.join(sorted(named))}; or write .npz files that hold an array for each input"
            )
        bundles = [tuple(named[file_stem(spec.name)] for spec in inputs)]
    rows = [
        Row(bundle, place) for bundle in bundles for place in range(len(read_arrays(bundle, inputs)[inputs[0].name]))
    ]
    if not rows:
        raise DataError(f"{folder}: expected at least one sample; got arrays of none; check --data")
    return ArrayFeeds(inputs, tuple(rows))


def file_stem(name: str) -> str:
    """Return how the file of an input is named: as the input, with an underscore for what file names cannot hold."""
    return re.sub(r"[^\w.-]", "_", name)
