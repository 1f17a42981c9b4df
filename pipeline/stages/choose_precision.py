"""Stage: which precision ships, measured on the device and judged on held-out samples, before any quantized training.

Rule: a decision, not a measurement: what ships is profiled afresh, whatever was found here.
"""

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import onnx
import onnx_ir as ir

from calibration.scheme import Scheme
from pipeline.artifacts import OnnxFile, PrecisionChoice, Ranges, TriedPrecision
from pipeline.export.dynamic import PRODUCTS
from pipeline.export.place_onnx import quantizable_layers
from pipeline.precision.plan import Plan, Precision, Rest, Tried
from pipeline.precision.search import MOST_SECONDS, search
from pipeline.precision.units import Unit, units_of
from pipeline.precision.workbench import Exam, OnnxWorkbench
from pipeline.progress import OnProgress, say_nothing
from pipeline.site import Site
from targets.target import Target

logger = logging.getLogger(__name__)

STAGE_VERSION = 3
USUAL_STEPS = 6
"""Plain precisions, two ways to mix them, two judgements and the end; a repair takes more."""
TOOLCHAIN = ("onnx", "onnx-ir", "numpy")


def choose_precision(
    out_dir: Path,
    prepared: OnnxFile,
    ranges: Ranges,
    target: Target,
    site: Site,
    exam: Exam,
    *,
    threads: int,
    scheme: Scheme | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    with_mixtures: bool = True,
    seconds: float = MOST_SECONDS,
    on_progress: OnProgress = say_nothing,
) -> PrecisionChoice:
    """Search the fastest precision that holds (pipeline.precision.search).

    Args:
        out_dir: stays empty.
        prepared: the float model, from `prepare_onnx`.
        ranges: of its tensors.
        target: the runtime.
        site: where it is measured.
        exam: what plans are judged on.
        threads: of one inference.
        scheme: the grid; None: the one that the target's students are trained on.
        shapes: of inputs whose dimensions the model leaves open.
        with_mixtures: whether single layers are tried in float; else the plain precisions alone.
        seconds: of the search, before its last comparison.
        on_progress: hears of each step.

    Raises:
        ModelRefused: the runtime refuses the float model.
        DeviceError: a job failed.
    """
    graph = ir.from_proto(onnx.load(str(prepared.path))).graph
    layers = quantizable_layers(graph)
    products = frozenset(str(node.name) for node in graph if node.op_type in PRODUCTS) & set(layers)
    units: tuple[Unit, ...] = units_of(graph) if with_mixtures else ()
    with tempfile.TemporaryDirectory(prefix="precision-") as folder:
        workbench = OnnxWorkbench(
            prepared, ranges, target, site.device, threads, exam, Path(folder), shapes=dict(shapes or {}), scheme=scheme
        )
        steps: list[str] = []

        def tell(line: str) -> None:
            steps.append(line)
            logger.info(line)
            on_progress(min(len(steps), USUAL_STEPS), USUAL_STEPS)

        choice = search(
            workbench,
            precisions=_precisions(target, site, has_products=bool(products)),
            units=units,
            layers=layers,
            variants=_variants(target, site, layers, products),
            seconds=seconds,
            on_step=tell,
        )
    return PrecisionChoice(
        precision=choice.plan.precision,
        float_layers=tuple(sorted(choice.plan.float_layers)),
        rest=choice.plan.rest,
        layers=layers,
        reason=choice.reason,
        finalists=tuple(map(_as_artifact, choice.finalists)),
        explored=tuple(map(_as_artifact, choice.explored)),
        refusals=tuple(f"{plan.words}: {reason}" for plan, reason in workbench.refusals.items()),
        has_labels=exam.labels is not None,
    )


def plan_of(choice: PrecisionChoice | TriedPrecision) -> Plan:
    """Return the plan that was chosen, or tried."""
    return Plan(cast(Precision, choice.precision), frozenset(choice.float_layers), cast(Rest | None, choice.rest))


def _precisions(target: Target, site: Site, *, has_products: bool) -> tuple[Precision, ...]:
    floats: list[Precision] = [name for name in ("bf16", "fp16") if name in site.facts.float_types]
    dynamic: list[Precision] = ["int8_dynamic"] if target.dynamic and has_products else []
    return ("fp32", *floats, "int8", *dynamic)


def _variants(target: Target, site: Site, layers: tuple[str, ...], products: frozenset[str]) -> tuple[Plan, ...]:
    """Return int8 beside another float type, and the ways to give linear layers their ranges at run time."""
    plans: list[Plan] = []
    if not target.floats_in_file:
        beside: list[Rest] = [name for name in ("bf16", "fp16") if name in site.facts.float_types]
        plans += [Plan("int8", rest=rest) for rest in beside]
    if target.dynamic and products:
        plans.append(Plan("int8_dynamic", rest="int8_dynamic_per_tensor"))
        if products < set(layers):
            plans.append(Plan("int8", products, "int8_dynamic"))
            plans.append(Plan("int8", products, "int8_dynamic_per_tensor"))
    return tuple(plans)


def _as_artifact(tried: Tried) -> TriedPrecision:
    assert tried.of_fp32 is not None
    return TriedPrecision(
        precision=tried.plan.precision,
        float_layers=tuple(sorted(tried.plan.float_layers)),
        rest=tried.plan.rest,
        median_ms=tried.median_ms,
        ratio=tried.ratio,
        ratio_interval=tried.ratio_interval,
        of_fp32=tried.of_fp32,
        drop=tried.quality.drop if tried.quality else None,
        error_db=tried.quality.error_db if tried.quality else None,
        size_bytes=tried.quality.size_bytes if tried.quality else None,
        holds=tried.quality.holds if tried.quality else None,
    )
