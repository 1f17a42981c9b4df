"""What stages produce: a path (or plain figures) plus facts. Rule: typed, frozen, and nothing else to be known of them.

An artifact that lives in the store has its Path fields in its folder; the store writes the others as JSON.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from targets.target import Layer, TensorSpec


@dataclass(frozen=True)
class Checkpoint:
    """A trained torch model as safetensors."""

    path: Path
    sha256: str
    image_shape: tuple[int, int, int]
    """Height, width and channels of the images that it takes."""
    classes: tuple[str, ...]
    parameters: int
    epochs: int
    validation_accuracy: float
    """Of the last epoch, on the validation cut; fraction."""
    best_validation_accuracy: float
    """Of the best epoch, shown beside the last, never instead of it; fraction."""


@dataclass(frozen=True)
class SyntheticImages:
    """Images synthesized from a teacher: uint8[N, H, W, C] `images` and int64[N] `labels` in safetensors.

    They may reveal the teacher's training data, and are bound by whatever binds that.
    """

    path: Path
    sha256: str
    image_shape: tuple[int, int, int]
    """Height, width and channels."""
    images_per_class: tuple[int, ...]
    """Number of images of each class, in the teacher's order."""
    teacher_agreement: float
    """Share of the images, as bytes, that the teacher takes for the class asked for; fraction."""


@dataclass(frozen=True)
class Predictions:
    """A torch model's logits of the test images, as float32[num_samples, num_classes] in safetensors."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class OnnxModel:
    """An exported model: one ONNX file."""

    path: Path
    sha256: str
    size_bytes: int
    opset: int
    precision: str
    input: TensorSpec
    output: TensorSpec


@dataclass(frozen=True)
class CompiledModel:
    """What ships: the file that the runtime loads on the device, and how it runs there."""

    path: Path
    sha256: str
    size_bytes: int
    runtime: str
    """Kind of the target that compiled it."""
    runtime_version: str
    device: str
    """Digest of what the device says of itself."""
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Hop:
    """How far two forms of one model part on the same inputs."""

    max_abs_diff: float
    top1_agreement: float
    num_samples: int


@dataclass(frozen=True)
class Parity:
    """The trained model in torch (fp32), its ONNX file, and the compiled artifact on the device."""

    torch_vs_onnx: Hop
    onnx_vs_device: Hop


@dataclass(frozen=True)
class Accuracy:
    """Top-1 correctness of every test sample along the chain; each array is bool[num_samples]."""

    metric: str
    teacher: np.ndarray
    student: np.ndarray
    quantized: np.ndarray
    on_device: np.ndarray


@dataclass(frozen=True)
class LatencyProfile:
    """Raw samples of one model on one device under one protocol, and what they cost."""

    scope: str
    samples_ns: np.ndarray
    """int64, in the order taken."""
    block_sizes: tuple[int, ...]
    """Samples of each fresh process, in order."""
    warmup_runs: int
    load_ms: tuple[float, ...]
    """Time to load the artifact, once a process."""
    peak_bytes: int
    """Largest resident memory of an inference process."""
    baseline_bytes: int
    """The same with the runtime imported and no model loaded."""
    seconds: float
    """Wall time of the whole profile."""
    threads: int
    protocol: str
    """In words, so that figures can be compared."""
    context: dict[str, object]
    """What the device said of itself, its clocks and its load, before and after."""
    measured_at: str
    """UTC, ISO 8601."""


@dataclass(frozen=True)
class Release:
    """What an application team gets: one archive with the model, its manifest and its evidence."""

    path: Path
    sha256: str
    size_bytes: int
