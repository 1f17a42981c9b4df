"""Budgets that a deployment may set. Rule: declarations only; check_budget judges them."""

from typing import Literal

from pydantic import Field, model_validator

from pipeline.parts import RecipePart

Scope = Literal["model", "end_to_end"]


class LatencyBudget(RecipePart):
    """A percentile of the latency, host to host."""

    max_ms: float = Field(gt=0)
    """Upper limit in milliseconds."""
    percentile: float = Field(default=99, gt=0, lt=100)
    """Which percentile the limit is for."""
    scope: Scope = "model"
    """`model`: inference alone; `end_to_end`: with pre- and post-processing."""


class AccuracyBudget(RecipePart):
    """Top-1 accuracy on the device, as fractions, measured on the test set."""

    min: float | None = Field(default=None, ge=0, le=1)
    """Least accuracy on the device."""
    max_drop_student: float | None = Field(default=None, ge=-1, le=1)
    """Most that may be lost against the fp32 student (paired: the same images)."""
    max_drop_teacher: float | None = Field(default=None, ge=-1, le=1)
    """Most that may be lost against the teacher (paired)."""


class ParityBudget(RecipePart):
    """How far the device may part from the trained model; both hops (torch to ONNX, ONNX to device) must hold."""

    max_abs_diff: float | None = Field(default=None, ge=0)
    """Largest absolute difference of any logit."""
    min_agreement: float | None = Field(default=None, ge=0, le=1)
    """Least share of samples with the same top-1 class."""


class SizeBudget(RecipePart):
    """Bytes of the artifact that ships."""

    max_bytes: int = Field(gt=0)
    """Upper limit in bytes."""


class MemoryBudget(RecipePart):
    """Peak resident memory of the inference process."""

    max_bytes: int = Field(gt=0)
    """Upper limit in bytes."""
    above: Literal["baseline", "zero"] = "zero"
    """`zero`: the whole process; `baseline`: above the process with the runtime imported and no model loaded."""


class LoadBudget(RecipePart):
    """Time to load the artifact until it can infer."""

    max_ms: float = Field(gt=0)
    """Upper limit in milliseconds."""


class EnergyBudget(RecipePart):
    """Energy of one inference, where the device has a power sensor; undecided where it has none."""

    max_mj: float = Field(gt=0)
    """Upper limit in millijoules."""
    above: Literal["idle", "zero"] = "idle"
    """`idle`: what an inference adds to the device at rest; `zero`: with what the device takes anyway meanwhile."""


class Budget(RecipePart):
    """What must hold on the device before anything is released; a part left out is measured, not judged."""

    latency: LatencyBudget | None = None
    accuracy: AccuracyBudget | None = None
    parity: ParityBudget | None = None
    size: SizeBudget | None = None
    memory: MemoryBudget | None = None
    load: LoadBudget | None = None
    energy: EnergyBudget | None = None
    """Largest energy of one inference; undecided where the device has no power sensor."""

    @model_validator(mode="after")
    def _is_not_empty(self) -> "Budget":
        if not self.model_fields_set:
            raise ValueError("expected at least one of latency, accuracy, parity, size, memory, load, energy; got none")
        return self


class Protocol(RecipePart):
    """How latency is sampled on the device."""

    mode: Literal["burst", "sustained", "cold_start", "throughput"] = "burst"
    """`burst`: until the budget is decided; `sustained`: for `max_seconds`, which tells what heat does; `cold_start`:
    from the start of a process to the end of its first inference; `throughput`: the latency of each inference while
    `streams` infer at once."""
    max_seconds: float = Field(default=60, gt=0)
    """Sampling stops here at the latest; a budget that is not decided by then is `undecided`."""
    min_samples: int = Field(default=8192, ge=1)
    """No budget passes early with fewer samples, shared by `processes`: what comes in rare bursts must be seen."""
    processes: int = Field(default=12, ge=1)
    """Fresh processes at least before a budget passes early, as far as `max_seconds` allow: processes differ."""
    streams: int = Field(default=1, ge=1, le=256)
    """Inferences at once in the mode `throughput`, each with a session of its own."""
    start_below_c: float | None = None
    """The device must be cooler than so many degrees before the first process; where it is not, it is waited for."""
    cool_down_seconds: float = Field(default=300, ge=0)
    """How long at most."""
    energy_seconds: float = Field(default=3, ge=0)
    """How long the device rests, and then infers, while its power is read; only where it has a power sensor."""

    @model_validator(mode="after")
    def _streams_fit(self) -> "Protocol":
        if self.streams > 1 and self.mode != "throughput":
            raise ValueError(f'streams: expected 1 where mode is not "throughput"; got {self.streams}')
        return self


DEFAULT_PROTOCOL = Protocol()
