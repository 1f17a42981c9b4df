"""Gathers what a search for a precision found into figures of the report. Rule: copies; judges nothing."""

from pipeline.artifacts import LayerSensitivity, PrecisionChoice, Sensitivity, TriedPrecision
from pipeline.measuring.ratio import Speedup
from pipeline.measuring.verdict import Verdict
from pipeline.report.report import EarnedFigures, LayerFigures, PrecisionFigures, TriedFigures
from pipeline.report.wording import plan_words


def search_figures(
    choice: PrecisionChoice, sensitivity: Sensitivity | None = None, earned: Speedup | None = None
) -> PrecisionFigures:
    """Return everything that was tried, and what ships: float after all where trained int8 did not earn its place."""
    ships_float = earned is not None and earned.verdict is Verdict.FAIL
    chosen = ("fp32", (), None) if ships_float else (choice.precision, choice.float_layers, choice.rest)
    finalists = tuple(_tried(tried, chosen, is_finalist=True) for tried in choice.finalists)
    return PrecisionFigures(
        chosen=plan_words(*chosen),
        reason=_float_after_all(choice, earned) if ships_float and earned else choice.reason,
        tried=(*finalists, *(_tried(tried, chosen, is_finalist=False) for tried in choice.explored)),
        has_labels=choice.has_labels,
        refusals=choice.refusals,
        sensitivity=tuple(map(_layer, sensitivity.layers)) if sensitivity else (),
        sensitivity_samples=sensitivity.num_samples if sensitivity else None,
        earned=EarnedFigures(ratio=earned.ratio, interval=earned.interval, verdict=earned.verdict) if earned else None,
    )


def _float_after_all(choice: PrecisionChoice, earned: Speedup) -> str:
    plan = plan_words(choice.precision, choice.float_layers, choice.rest)
    return (
        f"{plan} was chosen ({choice.reason}), but measured once more, as it would ship, it is {earned.ratio:.3g} "
        "times as fast as float, which is slower beyond noise: fp32 ships"
    )


def _tried(
    tried: TriedPrecision, chosen: tuple[str, tuple[str, ...], str | None], *, is_finalist: bool
) -> TriedFigures:
    return TriedFigures(
        plan=plan_words(tried.precision, tried.float_layers, tried.rest),
        precision=tried.precision,
        float_layers=tried.float_layers,
        rest=tried.rest,
        median_ms=tried.median_ms,
        of_fp32=tried.of_fp32,
        of_fp32_ci=tried.ratio_interval if tried.ratio == tried.of_fp32 else None,
        drop=tried.drop,
        error_db=tried.error_db,
        size_bytes=tried.size_bytes,
        holds=tried.holds,
        is_finalist=is_finalist,
        is_chosen=(tried.precision, tried.float_layers, tried.rest) == chosen,
    )


def _layer(layer: LayerSensitivity) -> LayerFigures:
    return LayerFigures(
        name=layer.name,
        op_type=layer.op_type,
        error_db=layer.error_db,
        drop=layer.drop,
        float_ms=layer.float_ms,
        int8_ms=layer.int8_ms,
        weight_share=layer.weight_share,
    )
