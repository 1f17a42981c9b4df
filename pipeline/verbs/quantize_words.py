"""What `edgeproof quantize` found, as tables for people and as JSON for machines. Rule: decides nothing."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import JsonValue, TypeAdapter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.artifacts import (
    CalibrationChoice,
    FusionProof,
    ObservedTensor,
    OutputParity,
    Sensitivity,
    TriedCalibration,
)
from pipeline.export.bisect import LEAST_SNR_DB, NoisyTensor
from pipeline.measuring import quantiles
from pipeline.measuring.ratio import Speedup
from pipeline.measuring.verdict import Verdict
from pipeline.post_training import Calibrated, Comparison, Form
from pipeline.precision.plan import Plan
from pipeline.report.report import PrecisionFigures
from pipeline.report.search_words import (
    drop_words,
    error_words,
    holds_words,
    ratio_words,
    search_lines,
    table_rows,
    time_words,
)
from pipeline.report.wording import byte_words, figure
from pipeline.tasks.choose_feeds import Chosen
from targets.target import Layer

WORST = 10
"""Tensors, outputs and float islands that are shown to people; machines get all."""
_JSON_VALUE: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """One quantization and its verdict."""

    model: Path
    out: Path
    runtime: str
    runtime_version: str
    threads: int
    method: str
    calibrated: Calibrated
    chosen: Chosen
    plan: Plan
    search: PrecisionFigures | None
    """How the plan was found, where it was."""
    sensitivity: Sensitivity | None
    """Where it was asked for."""
    warnings: tuple[str, ...]
    comparison: Comparison
    device: str = "local"

    @property
    def folded_out(self) -> Path:
        """Where the folded float file goes, if it is worth having."""
        return self.out.with_name(f"{self.out.stem.removesuffix('.int8').removesuffix('.auto')}.folded.onnx")

    @property
    def page(self) -> Path:
        """Where the picture of a search goes."""
        return self.out.with_suffix(".html")

    @property
    def forms(self) -> tuple[tuple[str, Form], ...]:
        """Name and figures of every form of the model."""
        comparison = self.comparison
        return ("float", comparison.given), ("folded", comparison.folded), (self.label, comparison.quantized)

    @property
    def label(self) -> str:
        """What the last form is called."""
        return "int8" if self.search is None else "auto"


def show(console: Console, found: Quantized) -> None:
    """Print everything that people need to judge the int8 model."""
    place = "this machine" if found.device == "local" else f"device {found.device}"
    _say(
        console,
        f"{found.model} on {found.runtime} {found.runtime_version}, {place}, {found.threads} thread(s): "
        f"{found.label}, ranges by {found.method} from {found.calibrated.ranges.num_samples} samples",
    )
    for line in calibration_lines(found.calibrated.choice):
        _say(console, line)
    for warning in found.warnings:
        _say(console, f"warning: {warning}", "yellow")
    console.print(_latency_table(found))
    _show_folding(console, found)
    _show_parity(console, found)
    _show_outliers(console, found.calibrated.ranges.tensors)
    _show_fusion(console, found.comparison.fusion)
    if found.sensitivity is not None:
        _show_sensitivity(console, found.sensitivity)
    if found.search is None:
        _say(console, speed_words(found.comparison), _STYLES[found.comparison.speedup.verdict])
    else:
        _show_search(console, found.search, found.page)
    _say(console, f"written: {found.out}, and the verdict beside it: {found.out.with_suffix('.json')}")


_STYLES = {Verdict.PASS: "bold green", Verdict.FAIL: "bold red", Verdict.UNDECIDED: "bold yellow"}


def calibration_lines(choice: CalibrationChoice | None) -> tuple[str, ...]:
    """Say which calibration was chosen, on what, and what the others gave."""
    if choice is None:
        return ()
    if not choice.tried:
        return (f"calibration: {_way_words(choice)}: too few samples to try others; take 20 or more",)
    others = [tried for tried in choice.tried if _way_words(tried) != _way_words(choice)]
    return (
        f"calibration: {_way_words(choice)}: the best of {len(choice.tried)} ways on {choice.num_judged} samples that "
        f"ranges do not come from, SNR of the worst output {_db(choice.snr_db)}",
        *(f"  {_db(tried.snr_db)}: {_way_words(tried)}" for tried in others),
    )


def _way_words(way: CalibrationChoice | TriedCalibration) -> str:
    equalized = ", channels equalised" if way.is_equalized else ""
    return f"{way.method}{equalized}{', biases corrected' if way.is_corrected else ''}"


def speed_words(comparison: Comparison) -> str:
    """Say whether int8 is faster, by how much, and what to do where it is not."""
    speedup = comparison.speedup
    known = f"95 %: {speedup.interval[0]:.3g} to {speedup.interval[1]:.3g}, " if speedup.interval else ""
    measured = f"{speedup.ratio:.3g} times as fast as the faster float ({known}{speedup.num_rounds} rounds in turns)"
    if speedup.verdict is Verdict.PASS:
        return f"int8 is FASTER: {measured}"
    if speedup.verdict is Verdict.FAIL:
        return (
            f"int8 is SLOWER: {measured}. Do not ship it: keep the float file, keep what the runtime computes in float "
            "in float (--float), or choose another runtime"
        )
    return f"whether int8 is faster is UNDECIDED: {measured}; measure longer (--max-seconds) on a quiet machine"


def _latency_table(found: Quantized) -> Table:
    table = _table("", "p50", "p99", "95 % of the p99", "samples", "size", "executed")
    for name, form in found.forms:
        samples_ms = _samples_ms(form)
        interval = quantiles.interval(samples_ms, 99)
        table.add_row(
            name,
            figure(quantiles.percentile_of(samples_ms, 50), "ms"),
            figure(quantiles.percentile_of(samples_ms, 99), "ms"),
            f"{interval[0]:.3g} to {interval[1]:.3g} ms" if interval else "needs 368 samples",
            f"{samples_ms.size:,}",
            byte_words(form.size_bytes),
            _counts(form.layers),
        )
    return table


def _show_folding(console: Console, found: Quantized) -> None:
    if found.comparison.folding_pays:
        ratio = found.comparison.folding_speedup.ratio
        _say(
            console,
            f"without any int8, folding what is constant makes the file {ratio:.3g} times as fast; it is written too: "
            f"{found.folded_out}",
        )


def _counts(layers: Sequence[Layer]) -> str:
    if not layers:
        return "unknown"
    counts = Counter(layer.precision for layer in layers)
    return ", ".join(f"{count} {precision}" for precision, count in counts.most_common())


def _show_parity(console: Console, found: Quantized) -> None:
    if found.comparison.no_parity:
        _say(console, f"parity could not be measured: {found.comparison.no_parity}", "bold yellow")
        return
    apart = "held-out samples" if found.chosen.are_apart else "of the calibration samples"
    _say(console, f"parity with the float file as written, {len(found.chosen.held_out)} {apart}:")
    table = _table("output", "form", "SNR", "cosine", "max diff", "same top-1")
    for name, form in found.forms:
        for output in form.parity[:WORST]:
            table.add_row(output.name, name, *_parity_cells(output))
    console.print(table)
    if found.comparison.noisy:
        first = found.comparison.noisy[0]
        _say(
            console,
            f"the first tensor that parts: {first.tensor!r} of {first.op_type} {first.node!r}, SNR "
            f"{_db(first.snr_db)}; {len(found.comparison.noisy)} tensors are below {LEAST_SNR_DB:g} dB",
        )


def _parity_cells(output: OutputParity) -> tuple[str, str, str, str]:
    return (
        "exact" if output.snr_db is None else _db(output.snr_db),
        f"{output.cosine:.5f}",
        f"{output.max_abs_diff:.3g}",
        "-" if output.top1_agreement is None else figure(output.top1_agreement, "fraction"),
    )


def _show_outliers(console: Console, tensors: Sequence[ObservedTensor]) -> None:
    _say(console, "tensors with the largest outliers:")
    table = _table("tensor", "range", "largest / 99.99 %", "kurtosis", "cut", "dead channels")
    for tensor in worst_first(tensors)[:WORST]:
        ratio = "infinite" if tensor.outlier_ratio is None else f"{tensor.outlier_ratio:.3g}"
        table.add_row(
            tensor.name,
            f"{tensor.low:.3g} to {tensor.high:.3g}" + (", constant" if tensor.is_constant else ""),
            ratio,
            f"{tensor.kurtosis:.3g}",
            f"{100 * tensor.clipped_share:.2g} %",
            f"{tensor.zero_channels} of {tensor.num_channels}",
        )
    console.print(table)


def worst_first(tensors: Sequence[ObservedTensor]) -> list[ObservedTensor]:
    """Return constants first, then the largest outliers."""
    ratios = {tensor.name: math.inf if tensor.outlier_ratio is None else tensor.outlier_ratio for tensor in tensors}
    return sorted(tensors, key=lambda tensor: (not tensor.is_constant, -ratios[tensor.name], -tensor.kurtosis))


def _show_fusion(console: Console, fusion: FusionProof) -> None:
    time = "" if fusion.int8_time_share is None else f", {fusion.int8_time_share:.0%} of the time"
    _say(
        console,
        f"int8: {fusion.int8_operators} of {fusion.num_operators} executed operators{time}; {fusion.conversions} Q/DQ "
        f"executed, {len(fusion.strays)} of them stray; {len(fusion.islands)} float islands",
    )
    for stray in fusion.strays[:WORST]:
        _say(console, f"  stray {stray.op_type} {stray.name!r} between {stray.before} and {stray.after}")
    for island in fusion.islands[:WORST]:
        share = "" if island.time_share is None else f"{island.time_share:.1%} of the time, "
        _say(console, f"  {share}{island.subject}: {island.reason}: {island.remedy}")


def _show_search(console: Console, search: PrecisionFigures, page: Path) -> None:
    table = _table("tried", "time of fp32", "lost", "error", "file", "holds")
    for tried in table_rows(search):
        size = "-" if tried.size_bytes is None else byte_words(tried.size_bytes)
        words = (
            ratio_words(tried),
            drop_words(tried.drop),
            error_words(tried.error_db),
            size,
            holds_words(tried.holds),
        )
        table.add_row(Text(tried.plan), *words, style="bold" if tried.is_chosen else "")
    console.print(table)
    for line in search_lines(search):
        _say(console, line, "bold")
    _say(console, f"error against latency saved, as a picture: {page}")


def _show_sensitivity(console: Console, sensitivity: Sensitivity) -> None:
    _say(console, f"each layer alone in int8, estimated from {sensitivity.num_samples} samples, the worst first:")
    table = _table("layer", "operator", "error", "lost", "float", "int8", "weights")
    for layer in sensitivity.layers[:WORST]:
        table.add_row(
            Text(layer.name),
            layer.op_type,
            error_words(layer.error_db),
            drop_words(layer.drop),
            time_words(layer.float_ms),
            time_words(layer.int8_ms),
            f"{100 * layer.weight_share:.1f} %",
        )
    console.print(table)


def _say(console: Console, words: str, style: str = "") -> None:
    console.print(Text(words, style=style), soft_wrap=True)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=name != "executed")
    return table


def _db(value: float) -> str:
    return f"{value:.1f} dB"


def _samples_ms(form: Form) -> np.ndarray:
    samples_ms: np.ndarray = np.concatenate(form.turns.samples_ns) / 1e6
    return samples_ms


def as_json_value(found: Quantized) -> JsonValue:
    """Return everything that was found, for machines."""
    comparison = found.comparison
    return _JSON_VALUE.validate_python(
        {
            "model": str(found.model),
            "out": str(found.out),
            "folded_out": str(found.folded_out) if comparison.folding_pays else None,
            "runtime": found.runtime,
            "device": found.device,
            "runtime_version": found.runtime_version,
            "threads": found.threads,
            "method": found.method,
            "calibration_samples": found.calibrated.ranges.num_samples,
            "calibration": _calibration_as_json(found.calibrated.choice),
            "held_out_samples": len(found.chosen.held_out) if found.chosen.are_apart else 0,
            "precision": found.plan.precision,
            "float_layers": sorted(found.plan.float_layers),
            "rest": found.plan.rest,
            "search": found.search.model_dump(mode="json") if found.search else None,
            "sensitivity": [asdict(layer) for layer in found.sensitivity.layers] if found.sensitivity else None,
            "warnings": list(found.warnings),
            "verdict": comparison.speedup.verdict.value,
            "speedup": _speedup_as_json(comparison.speedup),
            "folding_speedup": _speedup_as_json(comparison.folding_speedup),
            **{name: _form_as_json(form) for name, form in found.forms},
            "no_parity": comparison.no_parity,
            "noisy_tensors": [_noisy_as_json(tensor) for tensor in comparison.noisy],
            "fusion": _listed(asdict(comparison.fusion)),
            "tensors": [asdict(tensor) for tensor in worst_first(found.calibrated.ranges.tensors)],
        }
    )


def _calibration_as_json(choice: CalibrationChoice | None) -> object:
    if choice is None:
        return None
    facts = {name: value for name, value in asdict(choice).items() if name != "ranges"}
    return _listed(facts)


def _form_as_json(form: Form) -> dict[str, object]:
    samples_ms = _samples_ms(form)
    interval = quantiles.interval(samples_ms, 99)
    return {
        "size_bytes": form.size_bytes,
        "num_samples": samples_ms.size,
        **{f"p{p}_ms": quantiles.percentile_of(samples_ms, p) for p in (50, 90, 99)},
        "p99_ci_ms": list(interval) if interval else None,
        "parity": [asdict(output) for output in form.parity],
        "executed": dict(Counter(layer.precision for layer in form.layers)),
    }


def _speedup_as_json(speedup: Speedup) -> dict[str, object]:
    interval = list(speedup.interval) if speedup.interval else None
    return {"ratio": speedup.ratio, "interval": interval, "rounds": speedup.num_rounds}


def _noisy_as_json(tensor: NoisyTensor) -> dict[str, object]:
    snr_db = tensor.snr_db if math.isfinite(tensor.snr_db) else None
    return {**asdict(tensor), "snr_db": snr_db}


def _listed(value: object) -> object:
    """Return a value with lists for tuples, as JSON has them."""
    if isinstance(value, dict):
        return {name: _listed(item) for name, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value
