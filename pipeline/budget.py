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


class Budget(RecipePart):
    """What must hold on the device before anything is released; a part left out is measured, not judged."""

    latency: LatencyBudget | None = None
    accuracy: AccuracyBudget | None = None
    parity: ParityBudget | None = None
    size: SizeBudget | None = None
    memory: MemoryBudget | None = None
    load: LoadBudget | None = None

    @model_validator(mode="after")
    def _is_not_empty(self) -> "Budget":
        if not self.model_fields_set:
            raise ValueError("expected at least one of latency, accuracy, parity, size, memory, load; got none")
        return self


class Protocol(RecipePart):
    """How latency is sampled on the device."""

    max_seconds: float = Field(default=60, gt=0)
    """Sampling stops here at the latest; a budget that is not decided by then is `undecided`."""
    min_samples: int = Field(default=512, ge=1)
    """Size of the first block; later blocks double the total."""


DEFAULT_PROTOCOL = Protocol()
