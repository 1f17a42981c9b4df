"""The three words of the gate, and one judged budget. Rule: a value that was not measured never passes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Unit = Literal["ms", "bytes", "fraction", "fraction_lost", "logit", "mJ"]
"""What a figure is in; `fraction_lost` is a difference of two fractions, positive where something was lost."""


class Verdict(StrEnum):
    """What is known of a budget: it holds, it does not, or the evidence decides neither."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict of all together: one failure fails, else one undecided leaves it undecided.

    None at all is UNDECIDED: nothing was shown.
    """
    found = set(verdicts)
    for verdict in (Verdict.FAIL, Verdict.UNDECIDED, Verdict.PASS):
        if verdict in found:
            return verdict
    return Verdict.UNDECIDED


@dataclass(frozen=True)
class Limit:
    """What a budget allows of one figure."""

    name: str
    """Of the check."""
    value: float
    unit: Unit
    bound: Literal["max", "min"] = "max"
    """Whether `value` is the most or the least that is allowed."""

    def holds(self, measured: float) -> bool:
        """Tell whether a value that is known exactly is within the limit; one that is not finite never is."""
        within = measured <= self.value if self.bound == "max" else measured >= self.value
        return within and math.isfinite(measured)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One budget, judged."""

    name: str
    measured: float | None
    """The point value, in `unit`; None where it was not measured or is not finite."""
    interval: tuple[float, float] | None
    """Two-sided 95 % interval, where one is known."""
    limit: float
    """What the budget allows, in `unit`."""
    bound: Literal["max", "min"]
    """Whether `limit` is the most or the least that is allowed."""
    unit: Unit
    verdict: Verdict
    note: str
    """How it was judged, or why it could not be."""


def judged(limit: Limit, measured: float, note: str, *, interval: tuple[float, float] | None = None) -> Check:
    """Judge a value that is known exactly: the point value decides, the interval is shown."""
    verdict = Verdict.PASS if limit.holds(measured) else Verdict.FAIL
    return check(limit, measured, verdict, note, interval=interval)


def undecided(limit: Limit, reason: str) -> Check:
    """Return the check of a figure that was not measured."""
    return check(limit, None, Verdict.UNDECIDED, reason)


def check(
    limit: Limit, measured: float | None, verdict: Verdict, note: str, *, interval: tuple[float, float] | None = None
) -> Check:
    """Return a check; a measured value that is not finite goes into its note, since JSON has no word for it."""
    if measured is not None and not math.isfinite(measured):
        measured, note = None, f"measured {measured}; {note}"
    return Check(
        name=limit.name,
        measured=measured,
        interval=interval,
        limit=limit.value,
        bound=limit.bound,
        unit=limit.unit,
        verdict=verdict,
        note=note,
    )
