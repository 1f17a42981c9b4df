"""Figures in words, for the terminal and the page alike. Rule: rounding happens here and nowhere else."""

from collections.abc import Iterable

from pipeline.measuring.verdict import Check, Unit, Verdict

VERDICT_WORDS = {Verdict.PASS: "✓ PASS", Verdict.FAIL: "✗ FAIL", Verdict.UNDECIDED: "? UNDECIDED"}
"""A sign and a word: never colour alone."""

CHECK_NAMES = {
    "latency": "latency",
    "accuracy": "accuracy",
    "accuracy_drop_student": "drop vs student",
    "accuracy_drop_teacher": "drop vs teacher",
    "parity_max_abs_diff": "parity max diff",
    "parity_agreement": "parity agreement",
    "size": "size",
    "memory": "memory",
    "load": "load",
    "energy": "energy",
    "golden": "golden answers",
}


RESTS = {
    "int8_dynamic": "linear layers dynamic",
    "int8_dynamic_per_tensor": "linear layers dynamic, weights per tensor",
}
"""What computes beside the int8 grid, where it is no float type."""


def plan_words(precision: str, float_layers: Iterable[str], rest: str | None) -> str:
    """Return a precision, and what computes otherwise, in a few words.

    Args:
        precision: as the recipe writes it.
        float_layers: layers that are not on the int8 grid.
        rest: what they compute in, where that is not fp32.
    """
    names = sorted(float_layers)
    listed = ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"
    if precision == "int8_dynamic":
        precision += ", weights per tensor" if rest == "int8_dynamic_per_tensor" else ""
        rest = None
    if rest is None or rest == "fp32":
        return f"{precision}, float: {listed}" if names else precision
    beside = RESTS.get(rest, rest)
    return f"{precision}, {beside}: {listed}" if names else f"{precision}, {beside} beside it"


def measured_words(check: Check) -> str:
    """Return the measured value with its unit."""
    return "not measured" if check.measured is None else figure(check.measured, check.unit)


def interval_words(check: Check) -> str:
    """Return the 95 % interval, in the measured value's unit unless its ends differ; a dash where there is none."""
    if check.interval is None:
        return "-"
    low, high = (figure(value, check.unit) for value in check.interval)
    low_number, low_unit = low.rpartition(" ")[::2]
    high_number, high_unit = high.rpartition(" ")[::2]
    return f"{low_number} to {high_number}" if low_unit == high_unit else f"{low} to {high}"


def limit_words(check: Check) -> str:
    """Return the limit as a comparison."""
    return f"{'≤' if check.bound == 'max' else '≥'} {figure(check.limit, check.unit)}"


def margin_words(check: Check) -> str:
    """Return by how much the measured value misses the limit, or how much of it is left."""
    if check.measured is None:
        return "-"
    if check.unit in ("fraction", "fraction_lost"):
        points = 100 * (check.measured - check.limit)
        worse = points > 0 if check.bound == "max" else points < 0
        return f"{abs(points):.2f} pp {'over' if points > 0 else 'below'}" if worse else (f"{abs(points):.2f} pp spare")
    if check.measured <= check.limit:
        return f"{100 * (1 - check.measured / check.limit):.0f} % spare" if check.limit else "none spare"
    if check.limit == 0:
        return f"{figure(check.measured - check.limit, check.unit)} over"
    ratio = check.measured / check.limit
    return f"{_significant(ratio)}x over" if ratio >= 2 else f"{_significant(100 * (ratio - 1))} % over"


def figure(value: float, unit: Unit) -> str:
    """Return a value with its unit, in as many digits as people compare."""
    if unit == "ms":
        return f"{_significant(value)} ms"
    if unit == "mJ":
        return f"{_significant(value)} mJ"
    if unit == "bytes":
        return byte_words(value)
    if unit == "fraction":
        return f"{100 * value:.2f} %"
    if unit == "fraction_lost":
        return f"{100 * value:.2f} pp"
    return f"{value:.3g}"


def byte_words(num_bytes: float) -> str:
    """Return a size in bytes, or in decimal kB or MB where that reads better."""
    if abs(num_bytes) < 10_000:
        return f"{num_bytes:,.0f} B"
    if abs(num_bytes) < 1_000_000:
        return f"{num_bytes / 1e3:.1f} kB"
    return f"{num_bytes / 1e6:,.1f} MB"


def second_words(seconds: float) -> str:
    """Return a duration: 0.12 s, 12 s, 3 min 05 s, 1 h 02 min."""
    if seconds < 9.95:
        return f"{seconds:.2g} s" if seconds < 0.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _significant(value: float) -> str:
    """Return three significant digits without an exponent: 0.00123, 1.23, 12.3, 1,230."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    digits = max(0, 2 - int(f"{rounded:e}".partition("e")[2]))
    return f"{rounded:,.{digits}f}"
