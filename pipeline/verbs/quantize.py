"""`edgeproof quantize`: any float ONNX file in int8 for a runtime, by the user's samples, judged on a device."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import onnx
import onnx_ir as ir

from calibration.ranges import AnyRange
from pipeline.artifacts import OnnxFile
from pipeline.errors import UsageError
from pipeline.export.input_check import check_input
from pipeline.export.operators import is_kept
from pipeline.export.place_onnx import quantizable_layers
from pipeline.export.source import Source, inputs_of, read_source
from pipeline.export.tapped import find_evaluator, run_tapped
from pipeline.inventory import load_inventory
from pipeline.measuring.verdict import Verdict
from pipeline.post_training import (
    Measuring,
    Place,
    calibrate_file,
    compare_forms,
    layer_sensitivity,
    quantize_model,
    search_precision,
    write_plan,
)
from pipeline.precision.build import options_of_plan
from pipeline.precision.plan import Plan
from pipeline.precision.search import MOST_SECONDS
from pipeline.precision.workbench import Exam
from pipeline.report.page import search_html
from pipeline.report.search_figures import search_figures
from pipeline.run import Run, open_run
from pipeline.schema import nearest
from pipeline.site import Site
from pipeline.stages.choose_precision import plan_of
from pipeline.tasks.choose_feeds import Choice, Chosen, choose_feeds
from pipeline.tasks.feeds import Feeds, Layout, Order, Pixels
from pipeline.verbs.output import EXIT_CODES, console_for_people, json_text, write_json
from pipeline.verbs.profile import choose_runtime, parse_shape, require_model
from pipeline.verbs.quantize_words import Quantized, as_json_value, show
from targets.devices.device import open_device
from targets.runner.feeds import resolve_shape
from targets.target import RunOptions, TensorSpec

METHODS = {method.kind: method for method in get_args(AnyRange)}
AUTO = "auto"
"""The method that is found to suit the model."""
PRECISIONS = ("int8", "auto")
MAX_DROP, MAX_ERROR_DB = 0.02, -20.0
"""What `auto` may lose unless told otherwise: samples with another largest output, or where none is a class, error."""
LAYOUTS = get_args(Layout)
ORDERS = get_args(Order)
PIXELS = ("0..1", "0..255")


@dataclass(frozen=True, kw_only=True)
class QuantizeRequest:
    """The command line of one quantization, as typed."""

    model: Path
    data: Path
    runtime: str
    method: str = AUTO
    samples: int = 128
    seed: int = 0
    mean: str | None = None
    std: str | None = None
    pixels: str | None = None
    channels: str | None = None
    layout: str | None = None
    shapes: tuple[str, ...] = ()
    float_layers: tuple[str, ...] = ()
    precision: str = "int8"
    threads: int = 1
    max_seconds: float = 30.0
    max_drop: float | None = None
    max_error_db: float | None = None
    search_seconds: float = MOST_SECONDS
    sensitivity: bool = False
    accept_slower: bool = False
    out: Path | None = None
    device: str = "local"
    devices: Path | None = None
    build: Path = Path("build")


def run_quantize(request: QuantizeRequest, *, as_json: bool) -> int:
    """Quantize, write and judge a model; return 0 where int8 is faster, 3 where it is slower, 5 where that is open.

    With the precision `auto` return 0: what is slower than float is not written.
    """
    require_model(request.model)
    target = choose_runtime(request.runtime)
    _choose("--method", request.method, (AUTO, *METHODS))
    _choose("--precision", request.precision, PRECISIONS)
    _require_fitting(request)
    out = _out(request)
    choice = _read_choice(request)
    console = console_for_people(as_json=as_json)
    run = open_run(console, request.build)
    source = read_source(request.model)
    inputs = _resolve(inputs_of(source.load()), request.shapes)
    chosen = choose_feeds(request.data, inputs, choice)
    device = open_device(request.device, run.work, load_inventory(request.devices), run.say)
    options = RunOptions(threads=request.threads)
    site = Site(device, device.probe(target))
    place = Place(target, site, options, _shapes(inputs, chosen.calibration))
    quantized = _quantize(request, source, chosen, place, run, out=out)
    if quantized.comparison.folding_pays:
        quantized.folded_out.write_bytes(quantized.calibrated.prepared.path.read_bytes())
    if quantized.search is not None:
        quantized.page.write_text(search_html(quantized.search, str(request.model)), encoding="utf-8")
    document = as_json_value(quantized)
    quantized.out.with_suffix(".json").write_text(json_text(document), encoding="utf-8")
    if as_json:
        write_json(document)
    else:
        show(console, quantized)
    is_chosen = request.accept_slower or request.precision == "auto"
    return 0 if is_chosen else EXIT_CODES[quantized.comparison.speedup.verdict]


def _quantize(
    request: QuantizeRequest, source: Source, chosen: Chosen, place: Place, run: Run, *, out: Path
) -> Quantized:
    """Write the int8 file as soon as it is there, then measure."""
    method = None if request.method == AUTO else METHODS[request.method]()
    calibrated = calibrate_file(source, chosen.calibration, method, place.target, run)
    out.parent.mkdir(parents=True, exist_ok=True)
    plan, choice = Plan("int8", _require_layers(calibrated.prepared, request.float_layers)), None
    if request.precision == "auto":
        exam = _exam(request, calibrated.prepared, chosen.held_out)
        choice = search_precision(calibrated, place, exam, run, seconds=request.search_seconds)
        plan = plan_of(choice)
        model = write_plan(calibrated, place.target, plan, run)
    else:
        model = quantize_model(calibrated, place.target, run, float_layers=plan.float_layers)
    out.write_bytes(model.path.read_bytes())
    options = options_of_plan(plan, request.threads)
    measuring = Measuring(chosen.held_out, place, request.max_seconds, options)
    comparison = compare_forms(source, calibrated, model, measuring, run, float_layers=plan.float_layers)
    sensitivity = layer_sensitivity(calibrated, place, chosen.held_out, run) if request.sensitivity else None
    earned = comparison.speedup if plan != Plan("fp32") else None
    if choice is not None and plan != Plan("fp32") and comparison.speedup.verdict is Verdict.FAIL:
        out.write_bytes(write_plan(calibrated, place.target, Plan("fp32"), run).path.read_bytes())
        plan = Plan("fp32")
    return Quantized(
        model=request.model,
        out=out,
        runtime=request.runtime,
        runtime_version=place.site.facts.identity["runtime_version"],
        threads=request.threads,
        method=calibrated.choice.method if calibrated.choice else request.method,
        calibrated=calibrated,
        chosen=chosen,
        plan=plan,
        search=search_figures(choice, sensitivity, earned) if choice else None,
        sensitivity=sensitivity,
        warnings=(*chosen.warnings, *_input_warnings(source, chosen), *calibrated.ranges.cautions),
        comparison=comparison,
        device=request.device,
    )


def _out(request: QuantizeRequest) -> Path:
    out = (
        request.out or request.build / "quantized" / f"{request.model.stem}.{request.runtime}.{request.precision}.onnx"
    )
    if out.absolute() == request.model.absolute():
        raise UsageError(f"--out: expected another file than the float model; got {out}; nothing was written")
    return out


def _require_fitting(request: QuantizeRequest) -> None:
    """Refuse options that another precision would heed."""
    is_auto = request.precision == "auto"
    limits = {"--max-drop": request.max_drop, "--max-error-db": request.max_error_db}
    typed = [name for name, value in limits.items() if value is not None]
    if typed and not is_auto:
        raise UsageError(f"{typed[0]}: expected it with --precision auto; got it with {request.precision}")
    if request.float_layers and is_auto:
        raise UsageError("--float: expected it with --precision int8; got it with auto, which finds layers by itself")


def _exam(request: QuantizeRequest, prepared: OnnxFile, held_out: Feeds) -> Exam:
    """Return what plans must hold: agreement where an output is [samples, classes], and an error where none is."""
    has_classes = any(len(spec.shape) == 2 and (spec.shape[1] or 2) > 1 for spec in prepared.outputs)
    max_error_db = request.max_error_db
    if max_error_db is None and not has_classes:
        max_error_db = MAX_ERROR_DB
    return Exam(held_out, MAX_DROP if request.max_drop is None else request.max_drop, max_error_db=max_error_db)


def _choose(option: str, typed: str, valid: tuple[str, ...]) -> str:
    if typed not in valid:
        raise UsageError(f"{option}: expected one of {', '.join(valid)}; got {typed}{nearest(typed, valid)}")
    return typed


def _read_choice(request: QuantizeRequest) -> Choice:
    layout = None if request.layout is None else LAYOUTS[LAYOUTS.index(_choose("--layout", request.layout, LAYOUTS))]
    return Choice(samples=request.samples, seed=request.seed, layout=layout, pixels=_read_pixels(request))


def _read_pixels(request: QuantizeRequest) -> Pixels | None:
    """Return what becomes of pixels; None where none of its options was given."""
    if request.mean is request.std is request.pixels is request.channels is None:
        return None
    order = ORDERS[ORDERS.index(_choose("--channels", request.channels or "rgb", ORDERS))]
    highest: Literal[1, 255] = 255 if _choose("--pixels", request.pixels or "0..1", PIXELS) == "0..255" else 1
    std = _read_numbers("--std", request.std or "1")
    if not all(value > 0 for value in std):
        raise UsageError(f"--std: expected numbers above 0; got {request.std}")
    return Pixels(mean=_read_numbers("--mean", request.mean or "0"), std=std, highest=highest, order=order)


def _read_numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise UsageError(f"{option}: expected numbers, one a channel, for example 0.485,0.456,0.406; got {text}")
    return numbers


def _resolve(inputs: Sequence[TensorSpec], typed: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Return the inputs with the sizes that were typed; the first, the number of samples, may stay open."""
    shapes = dict(parse_shape(text) for text in typed)
    unknown = sorted(shapes.keys() - {spec.name for spec in inputs})
    if unknown:
        names = tuple(spec.name for spec in inputs)
        raise UsageError(
            f"--shape: expected an input of the model: {', '.join(names)}; got {unknown[0]}{nearest(unknown[0], names)}"
        )
    return tuple(
        replace(spec, shape=(spec.shape[:1] + resolve_shape(spec, shapes[spec.name])[1:]))
        if spec.name in shapes
        else spec
        for spec in inputs
    )


def _shapes(inputs: Sequence[TensorSpec], feeds: Feeds) -> dict[str, tuple[int, ...]]:
    """Return the shapes of inputs with open sizes, as the samples have them: one sample an inference."""
    sample = feeds.sample(0)
    return {spec.name: sample[spec.name].shape for spec in inputs if None in spec.shape}


def _require_layers(prepared: OnnxFile, typed: Sequence[str]) -> frozenset[str]:
    """Return the layers to keep in float; raises UsageError for a name that covers none that would be quantized."""
    graph = ir.from_proto(onnx.load(str(prepared.path))).graph
    names = quantizable_layers(graph)
    nodes = [node for node in graph if node.name in set(names)]
    for layer in typed:
        if not any(is_kept(node, frozenset((layer,))) for node in nodes):
            listed = f"; there are {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}"
            raise UsageError(
                f"--float: expected a layer that is quantized, or the beginning of its name; got {layer}"
                f"{nearest(layer, names) or listed}"
            )
    return frozenset(typed)


def _input_warnings(source: Source, chosen: Chosen) -> tuple[str, ...]:
    warning = check_input(source.load(), run_tapped(find_evaluator(), chosen.calibration))
    return (warning,) if warning else ()
