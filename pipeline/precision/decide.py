"""Which of the plans that were measured ships: the fastest that holds, and the simplest where noise hides a difference.

Rule: figures in, a decision and its reason out; nothing is measured.
"""

from collections.abc import Sequence

from pipeline.precision.plan import Plan, Tried

WORTH = 0.005
"""Latency, as a fraction, that a further float layer must save; it costs a larger file and a longer table."""
WIDE = 1.1
"""Between the ends of an interval that holds 1: beyond it noise hides what counts."""


def is_open(tried: Tried) -> bool:
    """Tell whether noise hides which of two is faster: the interval holds 1, and is wide."""
    interval = tried.ratio_interval
    return interval is not None and interval[0] < 1 < interval[1] and interval[1] > WIDE * interval[0]


def choose(finalists: Sequence[Tried], fp32: Plan, held: Sequence[Plan]) -> tuple[Plan, str]:
    """Return what ships and why.

    Args:
        finalists: all compared with fp32 in one run.
        fp32: the plan that is never a risk.
        held: plans that hold.
    """
    allowed = [tried for tried in finalists if tried.plan in held]
    if not allowed:
        return fp32, "nothing holds: neither fp32 nor any precision below it"
    fastest = min(allowed, key=lambda tried: tried.ratio)
    if fastest.plan == fp32:
        return fp32, "fp32 is the fastest that holds"
    if fp32 in held and not fastest.is_faster:
        return (
            fp32,
            f"nothing is faster than fp32 beyond noise: {fastest.plan.words} takes {fastest.ratio:.3f} of its time",
        )
    chosen = min((each for each in allowed if _is_as_fast(each, fastest)), key=lambda each: each.plan.rank)
    assert chosen.quality is not None
    facts = f"{chosen.ratio:.3f} of fp32's time, {lost_words(chosen.quality.drop)}"
    if chosen == fastest:
        return chosen.plan, f"the fastest that holds: {facts}"
    return chosen.plan, f"the simplest that is as fast as the fastest that holds: {facts}"


def lost_words(drop: float) -> str:
    """Say what was lost."""
    points = 100 * drop
    return f"{abs(points):.2f} pp {'gained' if points < 0 else 'lost'} on held-out samples"


def _is_as_fast(tried: Tried, fastest: Tried) -> bool:
    """Tell whether a plan is slower than the fastest by no more than a float layer must be worth."""
    return tried.over(fastest).ratio <= 1 + WORTH
