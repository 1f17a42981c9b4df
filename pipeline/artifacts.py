"""What stages produce: a path (or plain figures) plus facts. Rule: typed, frozen, and nothing else to be known of them.

An artifact that lives in the store has its Path fields in its folder; the store writes the others as JSON.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from targets.runner.energy import EnergyRun
from targets.runner.sensors import Trace
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
class OnnxFile:
    """Any ONNX model in one file, whatever it takes and gives."""

    path: Path
    sha256: str
    size_bytes: int
    opset: int
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class ObservedTensor:
    """The range that a tensor's grid covers, and what passed through the tensor in calibration."""

    name: str
    low: float
    high: float
    outlier_ratio: float | None
    """Largest size / 99.99th percentile of the sizes; None where that percentile is zero."""
    kurtosis: float
    """3 of a Gaussian; 0 of a constant."""
    clipped_share: float
    """Of the values, by the range; fraction."""
    zero_channels: int
    num_channels: int
    is_constant: bool


@dataclass(frozen=True)
class BiasShift:
    """What rounding adds to the mean of a layer's output: one number a channel, to be taken off its bias."""

    layer: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Ranges:
    """Ranges of a float model's tensors, in the order of execution."""

    tensors: tuple[ObservedTensor, ...]
    num_samples: int
    cautions: tuple[str, ...] = ()
    """What to doubt about them, in words."""
    bias_shifts: tuple[BiasShift, ...] = ()
    """Of layers that read these tensors on their grids."""


@dataclass(frozen=True)
class TriedCalibration:
    """One way to calibrate a model, judged on samples that its ranges did not come from."""

    method: str
    is_equalized: bool
    """Whether channels were equalised before."""
    is_corrected: bool
    """Whether biases take off what rounding adds to means."""
    snr_db: float
    """Signal to noise ratio of the worst output."""


@dataclass(frozen=True)
class CalibrationChoice:
    """The calibration that suits a model best, and all that were tried, in order."""

    ranges: Ranges
    method: str
    is_equalized: bool
    is_corrected: bool
    snr_db: float
    tried: tuple[TriedCalibration, ...]
    num_judged: int
    """Samples that they were judged on; 0 where there were too few to judge."""


@dataclass(frozen=True)
class TriedPrecision:
    """One plan of a search: a precision, the layers that stayed float, what it took and what it lost."""

    precision: str
    float_layers: tuple[str, ...]
    rest: str | None
    """What computes that is not on the grid, where the precision does not say it."""
    median_ms: float
    ratio: float
    """Median over the rounds of its latency over that of the plan it was compared with (fp32 for finalists)."""
    ratio_interval: tuple[float, float] | None
    """95 %."""
    of_fp32: float
    """Latency over that of fp32: measured in finalists; on the way, through the plan that it was compared with."""
    drop: float | None
    """Top-1 accuracy lost on the cut, or agreement where there are no labels; fraction. None where not judged."""
    error_db: float | None
    size_bytes: int | None
    holds: bool | None


@dataclass(frozen=True)
class PrecisionChoice:
    """What a search chose, why, and all that it tried."""

    precision: str
    float_layers: tuple[str, ...]
    rest: str | None
    """As in `TriedPrecision`."""
    layers: tuple[str, ...]
    """All layers whose precision is a choice, in the order of execution."""
    reason: str
    finalists: tuple[TriedPrecision, ...]
    explored: tuple[TriedPrecision, ...]
    """Every other plan that was tried, once; errors of those that were not judged are estimates from few samples."""
    refusals: tuple[str, ...]
    """Plans that the runtime did not run, with its reasons."""
    has_labels: bool
    """Whether drops are of accuracy; else of agreement with the float model."""


@dataclass(frozen=True)
class LayerSensitivity:
    """What one layer does alone in int8, all others in float, and what it costs in both."""

    name: str
    op_type: str
    error_db: float
    """Of the outputs: mean square of the difference over mean square of the float ones."""
    drop: float
    """As in `TriedPrecision`."""
    float_ms: float | None
    """Of one inference in this layer, in the float model; None where the runtime does not tell."""
    int8_ms: float | None
    """The same in the int8 model."""
    weight_share: float
    """Of the bytes of all weights."""


@dataclass(frozen=True)
class Sensitivity:
    """Sensitivity and cost of every layer, the most sensitive first."""

    layers: tuple[LayerSensitivity, ...]
    num_samples: int
    """What errors were estimated from."""
    has_labels: bool


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
class Divergence:
    """How far one tensor parts between two forms of a model, in steps of its own grid (LSB)."""

    tensor: str
    lsb: float
    """Root mean square difference in the tensor's worst channel, in LSB; infinite where a value is not finite."""
    max_abs_diff: float
    """Largest absolute difference of any element, in the tensor's own unit."""
    budget_lsb: float
    """What `lsb` may be: rounding to the other side of a step, again and again, explains so much and no more."""


@dataclass(frozen=True)
class Bisection:
    """Where two forms of a model part, found by comparing tensor by tensor on the same inputs."""

    hop: str
    first: Divergence | None
    """The first tensor, in order of execution, beyond its budget; None where no single tensor is."""
    largest: Divergence
    num_tensors: int
    """How many were compared."""
    num_samples: int
    note: str
    """What the comparison itself changed, or could not see."""


@dataclass(frozen=True)
class Parity:
    """The trained model in torch (fp32), its ONNX file, and the compiled artifact on the device."""

    torch_vs_onnx: Hop
    onnx_vs_device: Hop
    bisections: tuple[Bisection, ...] = ()
    """One for each hop that parts beyond its limit, where its tensors can be compared."""


@dataclass(frozen=True)
class Conversion:
    """An executed Q/DQ, or a reorder that changes the type, between two operators."""

    name: str
    op_type: str
    before: str
    """The executed operator that it reads; a word for a weight or an input."""
    after: str
    """The executed operator that reads it first."""
    time_share: float | None
    """Of the counted time; None where the runtime does not count it."""


@dataclass(frozen=True)
class FloatIsland:
    """A maximal connected set of executed float operators, with the Q/DQ at its shores."""

    subject: str
    """What it is, as people call it; with `reason` and `remedy` one sentence."""
    reason: str
    remedy: str
    is_inside: bool
    """Whether int8 operators lie on both sides; else it is an end of the graph."""
    operators: tuple[str, ...]
    """ONNX operators, or the runtime's own where the file does not tell."""
    nodes: tuple[str, ...]
    """Names in the ONNX file, as far as they are known."""
    layers: tuple[str, ...]
    """Names of the executed operators."""
    num_conversions: int
    """Executed Q/DQ at its shores."""
    time_share: float | None
    """Of the counted time, its Q/DQ included; None where the runtime does not count it."""


@dataclass(frozen=True)
class SlowSpot:
    """Something that runs beside int8 arithmetic, and what to move."""

    kind: str
    """float island, Q/DQ, reformat, or not fused."""
    subject: str
    remedy: str
    count: int
    """Executed operators of it, or islands."""
    time_ms: float | None
    """Of one inference; None where the runtime does not count it."""
    time_share: float | None


@dataclass(frozen=True)
class FusionProof:
    """What of a model runs in int8 on its runtime, and what does not; figures of one inference."""

    runtime: str
    num_operators: int
    int8_operators: int
    float_operators: int
    conversions: int
    """Executed Q/DQ, wherever they are; the remaining operators compute sizes and the like."""
    int8_time_share: float | None
    float_time_share: float | None
    conversion_time_share: float | None
    strays: tuple[Conversion, ...]
    """Q/DQ that are neither at the graph's ends nor at the shore of an island; largest first."""
    islands: tuple[FloatIsland, ...]
    """Largest first; those inside before those at the ends."""
    has_edges: bool
    """Whether the runtime tells what reads what; else nothing is known of strays and islands."""
    slow_spots: tuple[SlowSpot, ...] = ()
    """What costs time beside int8 arithmetic, the most expensive first; none where nothing is int8."""


@dataclass(frozen=True)
class OutputParity:
    """How far one output of a model parts from what it should be, over all samples."""

    name: str
    snr_db: float | None
    """Signal to noise ratio; None where nothing differs."""
    cosine: float
    max_abs_diff: float
    top1_agreement: float | None
    """Share of rows with the same largest value, where the output is [samples, classes]."""
    num_samples: int


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
    traces: tuple[Trace, ...] = ()
    """What the device's sensors said in each process."""
    energy: tuple[EnergyRun, ...] = ()
    """Power at rest and while inferring, in each process that was asked for it."""
    looks: int = 1
    """How often the budget was looked at; each look spends some of the error."""
    mode: str = "burst"
    """Of the protocol."""
    inferences_per_s: float | None = None
    """Of all streams together, median over the processes; in the mode throughput."""

    @property
    def blocks_ns(self) -> tuple[np.ndarray, ...]:
        """Return the samples of each process."""
        return tuple(np.split(self.samples_ns, np.cumsum(self.block_sizes)[:-1]))


@dataclass(frozen=True)
class Release:
    """What an application team gets: one archive with the model, its manifest and its evidence."""

    path: Path
    sha256: str
    size_bytes: int
