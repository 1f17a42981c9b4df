"""Class names and scores of images, by ONNX Runtime. Rule: no model is loaded whose digest is not the manifest's.

Legend: N images, H height, W width, C channels, K classes.
"""

from __future__ import annotations

import hashlib
import json
import pkgutil
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, List, NamedTuple, Optional, Tuple, TypedDict, Union

import numpy as np

from . import constants

if TYPE_CHECKING:
    import onnxruntime

Pixels = Union[bytes, bytearray, memoryview, np.ndarray]
"""Of one image: uint8, height x width x channels, row by row, as the model's training had them."""


class ModelTampered(Exception):
    """The model in this package is not the one that was measured."""


class PixelsRefused(ValueError):
    """The pixels are not those of one image of the model's size."""


class Result(NamedTuple):
    """A class and its score."""

    label: str
    score: float


class GoldenAnswers(TypedDict):
    """What the model answered to the golden inputs, held against the golden outputs."""

    samples: int
    largest_difference: Optional[float]
    labels_equal: bool


class _Array(TypedDict):
    """An array of golden.json."""

    dtype: str
    shape: List[int]
    file: str


class SelfTest(TypedDict):
    """Golden answers and raw latencies on this machine: what `edgeproof gate --profile` judges."""

    schema_version: int
    name: str
    version: str
    platform: str
    device: str
    model_sha256: str
    runtime_version: str
    scope: str
    samples_ns: List[int]
    golden: GoldenAnswers


def load(threads: int = constants.THREADS) -> Model:
    """Return the model of this package.

    Args:
        threads: of one inference; as many as were measured, if left out.

    Raises:
        ModelTampered: its sha256 is not the manifest's, or it is not there.
    """
    content = _read("model.onnx")
    found = hashlib.sha256(content).hexdigest()
    if found != constants.MODEL_SHA256:
        raise ModelTampered(
            f"{constants.NAME} {constants.VERSION}: model.onnx: expected sha256 {constants.MODEL_SHA256}; got {found}; "
            "install the package again"
        )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads > 1 else "0")
    if overflows_int8(platform.machine(), _read_line("/proc/cpuinfo", "flags")):
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return Model(session, f"onnxruntime {onnxruntime.__version__}, cpu")


class Model:
    """A loaded model; several threads may use it at once."""

    def __init__(self, session: onnxruntime.InferenceSession, runtime_version: str) -> None:
        self._session = session
        self._runtime_version = runtime_version

    def classify(self, pixels: Pixels) -> List[Result]:
        """Return every class with its score, the likeliest first.

        Raises:
            PixelsRefused: not one image of the model's size.
        """
        logits_K = self._infer(preprocess(to_image(pixels)))
        scores_K = postprocess(logits_K)
        order = np.argsort(-logits_K, kind="stable")
        return [Result(constants.LABELS[index], float(scores_K[index])) for index in order]

    def self_test(self, runs: int = 1000, warmup: int = 10) -> SelfTest:
        """Ask the golden inputs, and time `runs` inferences one after the other, after `warmup` that are not timed."""
        images_NHWC, expected_NK = _read_golden()
        logits_NK = np.stack([self._infer(preprocess(image_HWC)) for image_HWC in images_NHWC])
        return {
            "schema_version": 1,
            "name": constants.NAME,
            "version": constants.VERSION,
            "platform": constants.PLATFORM,
            "device": _describe_device(),
            "model_sha256": constants.MODEL_SHA256,
            "runtime_version": self._runtime_version,
            "scope": constants.SCOPE,
            "samples_ns": self._time_inferences(images_NHWC[0], runs, warmup),
            "golden": compare_golden(logits_NK, expected_NK),
        }

    def _infer(self, feed: np.ndarray) -> np.ndarray:
        (logits_NK,) = self._session.run([constants.OUTPUT_NAME], {constants.INPUT_NAME: feed})
        logits_K: np.ndarray = logits_NK[0]
        return logits_K

    def _time_inferences(self, image_HWC: np.ndarray, runs: int, warmup: int) -> List[int]:
        feed = preprocess(image_HWC)

        def infer() -> object:
            return self._infer(feed) if constants.SCOPE == "model" else self.classify(image_HWC)

        samples_ns = []
        for _ in range(warmup + runs):
            start = time.perf_counter_ns()
            infer()
            samples_ns.append(time.perf_counter_ns() - start)
        return samples_ns[warmup:]


def overflows_int8(machine: str, flags: str) -> bool:
    """Tell whether products of 8-bit codes would overflow: on x86 without VNNI, or with flags that are unknown."""
    is_x86 = machine.lower() in ("x86_64", "amd64", "i386", "i686", "x86")
    return is_x86 and not {"avx_vnni", "avx512_vnni"} & set(flags.split())


def to_image(pixels: Pixels) -> np.ndarray:
    """Return pixels as uint8 (H, W, C)."""
    shape = (constants.HEIGHT, constants.WIDTH, constants.CHANNELS)
    if isinstance(pixels, np.ndarray):
        if pixels.dtype != np.uint8 or pixels.shape != shape:
            raise PixelsRefused(f"pixels: expected uint8 {shape}; got {pixels.dtype} {pixels.shape}; resize the image")
        return pixels
    image = np.frombuffer(pixels, np.uint8)
    if image.size != np.prod(shape):
        raise PixelsRefused(f"pixels: expected {np.prod(shape)} bytes, {shape}; got {image.size}; resize the image")
    return image.reshape(shape)


def preprocess(image_HWC: np.ndarray) -> np.ndarray:
    """Return what the model takes: the image first in a batch whose rest is zeros."""
    if constants.LAYOUT == "uint8_nhwc":
        tensor = image_HWC
    else:
        scale, bias = (np.array(values, np.float32)[:, None, None] for values in (constants.SCALE, constants.BIAS))
        tensor = image_HWC.transpose(2, 0, 1) * scale + bias
    batch = np.zeros((constants.BATCH or 1, *tensor.shape), tensor.dtype)
    batch[0] = tensor
    return batch


def postprocess(logits_K: np.ndarray) -> np.ndarray:
    """Return the score of every class, float32."""
    if constants.ACTIVATION == "none":
        return logits_K
    powers_K = np.exp(logits_K - logits_K.max())
    scores_K: np.ndarray = powers_K / powers_K.sum()
    return scores_K


def compare_golden(logits_NK: np.ndarray, expected_NK: np.ndarray) -> GoldenAnswers:
    """Hold answers against the golden ones."""
    largest = float(np.abs(logits_NK - expected_NK).max())
    return {
        "samples": len(expected_NK),
        "largest_difference": largest if np.isfinite(largest) else None,
        "labels_equal": bool((logits_NK.argmax(axis=1) == expected_NK.argmax(axis=1)).all()),
    }


def golden_holds(result: SelfTest) -> bool:
    """Tell whether every class is the golden one, and no output further off than another processor's rounding."""
    tolerance: float = json.loads(_read("golden.json"))["tolerance"]
    difference = result["golden"]["largest_difference"]
    return result["golden"]["labels_equal"] and difference is not None and difference <= tolerance


def _read_golden() -> Tuple[np.ndarray, np.ndarray]:
    golden = json.loads(_read("golden.json"))
    images_NHWC, logits_NK = (_read_array(golden[side]) for side in ("inputs", "outputs"))
    return images_NHWC, logits_NK


def _read_array(array: _Array) -> np.ndarray:
    dtype = np.dtype(array["dtype"]).newbyteorder("<")
    return np.frombuffer(_read(array["file"]), dtype).reshape(array["shape"])


def _read(name: str) -> bytes:
    """Return a file of the release, out of a folder or a zip archive."""
    where = f"{constants.NAME} {constants.VERSION}: {name}"
    try:
        content = pkgutil.get_data(str(__package__), f"release/{name}")
    except OSError as error:
        raise ModelTampered(f"{where}: expected it in the package; got none; install the package again") from error
    assert content is not None, "every loader of Python gives data"
    return content


def _describe_device() -> str:
    """Return board or processor, system and Python, as far as they name themselves; never the machine's own name."""
    board = _read_line("/proc/device-tree/model") or _read_line("/proc/cpuinfo", "model name") or platform.machine()
    words = (
        f"{board}, {platform.system()} {platform.release()} {platform.machine()}, Python {platform.python_version()}"
    )
    return "".join(letter for letter in words if letter.isprintable())[:500]


def _read_line(path: str, key: str = "") -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    found = [line for line in lines if line.startswith(key)]
    return found[0].split(":", 1)[-1].strip() if found else ""
