"""What a search chooses between, and what it finds out. Rule: values only."""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from pipeline.measuring import quantiles
from pipeline.report.wording import plan_words

Precision = Literal["fp32", "bf16", "fp16", "int8", "int8_dynamic"]
Rest = Literal["fp32", "bf16", "fp16", "int8_dynamic", "int8_dynamic_per_tensor"]
"""What computes that is not on the int8 grid: a float type, or, in linear layers, codes of ranges found at run time."""


@dataclass(frozen=True)
class Plan:
    """A precision, and the layers that stay float in spite of it."""

    precision: Precision
    float_layers: frozenset[str] = frozenset()
    """Names of layers, or prefixes that end before a dot or a slash."""
    rest: Rest | None = None
    """Of what is not on the grid; None: what the precision's name says, and fp32 beside int8."""

    @property
    def floats(self) -> Rest:
        """Return what computes that is not on the grid."""
        if self.rest is not None:
            return self.rest
        return "fp32" if self.precision == "int8" else self.precision

    @property
    def words(self) -> str:
        """Say it in a few words."""
        return plan_words(self.precision, self.float_layers, self.rest)

    @property
    def rank(self) -> tuple[bool, int, bool]:
        """Order plans by simplicity: fewer float layers, and no second kind of arithmetic."""
        return self.precision.startswith("int8"), len(self.float_layers), self.rest is not None


@dataclass(frozen=True)
class Quality:
    """How far a plan parts from the float model on the validation cut, before any training."""

    drop: float
    """Of top-1 accuracy where there are labels, else of agreement with the float model; fraction."""
    error_db: float
    """10 log10 of the mean squared difference of the outputs over the mean square of the float ones."""
    size_bytes: int
    """Of the file."""
    holds: bool
    """Whether all of it is within what the search was given."""


@dataclass(frozen=True)
class Tried:
    """One plan as it was measured beside the first one of its comparison."""

    plan: Plan
    round_ms: tuple[float, ...]
    """Median latency of each round."""
    base_ms: tuple[float, ...]
    """The same of the plan that it was compared with, in the same rounds."""
    quality: Quality | None = None
    of_fp32: float | None = None
    """Latency over that of fp32: measured in finalists; on the way, through the plan that it was compared with."""

    @property
    def median_ms(self) -> float:
        """Median of the rounds' medians."""
        return quantiles.percentile_of(np.array(self.round_ms), 50)

    @property
    def ratio(self) -> float:
        """Median over the rounds of its latency over that of the plan it was compared with."""
        return quantiles.percentile_of(self._ratios(), 50)

    @property
    def ratio_interval(self) -> tuple[float, float] | None:
        """95 % interval of the median ratio; None below 6 rounds."""
        return quantiles.interval(self._ratios(), 50)

    @property
    def is_faster(self) -> bool:
        """Whether it is faster beyond the noise of the rounds."""
        interval = self.ratio_interval
        return interval is not None and interval[1] < 1

    def over(self, other: "Tried") -> "Tried":
        """Return this plan beside another one of the same comparison."""
        return replace(self, base_ms=other.round_ms)

    def pooled(self, again: "Tried") -> "Tried":
        """Return this plan with the rounds of another comparison with the same one."""
        return replace(self, round_ms=self.round_ms + again.round_ms, base_ms=self.base_ms + again.base_ms)

    def _ratios(self) -> np.ndarray:
        ratios: np.ndarray = np.array(self.round_ms) / np.array(self.base_ms)
        return ratios


@dataclass(frozen=True)
class Choice:
    """What ships, why, and all that was tried."""

    plan: Plan
    reason: str
    finalists: tuple[Tried, ...]
    """The plans that were compared at the end, in one run, fp32 first; their ratios are over fp32."""
    explored: tuple[Tried, ...] = field(default=())
    """Every comparison on the way, in order."""
