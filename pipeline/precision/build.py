"""From a plan to the ONNX file that ships, and to how the runtime is told to run it. Rule: builds, never measures."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import onnx
import onnx_ir as ir

from calibration.scheme import Scheme
from pipeline.artifacts import OnnxFile, Ranges
from pipeline.export.onnx_file import write_onnx
from pipeline.export.rewrite import Dynamic, Form, rewrite
from pipeline.precision.plan import Plan, Rest
from targets.target import RunOptions, Target

DYNAMIC: Mapping[Rest, Dynamic] = MappingProxyType(
    {"int8_dynamic": "per_channel", "int8_dynamic_per_tensor": "per_tensor"}
)


def build_plan(
    prepared: OnnxFile, ranges: Ranges, target: Target, plan: Plan, folder: Path, *, scheme: Scheme
) -> OnnxFile:
    """Return the file of a plan, its int8 on the grid `scheme`, written to `folder` unless it is the prepared one.

    Its opset is one that the target reads.

    Raises:
        RecipeError: the model cannot take that precision, or has an operator that the target's opset cannot express.
    """
    form = _form(plan, target)
    if form == "fp32" and prepared.opset <= target.highest_opset:
        return prepared
    model = ir.from_proto(onnx.load(str(prepared.path)))
    rewrite(
        model,
        form,
        ranges=ranges,
        scheme=scheme,
        encoding=target.encoding,
        highest_opset=target.highest_opset,
        float_layers=plan.float_layers,
        dynamic=DYNAMIC.get(plan.floats),
    )
    folder.mkdir(parents=True, exist_ok=True)
    return write_onnx(ir.to_proto(model), folder / "model.onnx", precision=plan.precision)


def options_of_plan(plan: Plan, threads: int) -> RunOptions:
    """Return how a plan runs: the type pinned of what is not on codes, fp32 where nothing else is said."""
    return RunOptions(threads=threads, precision=plan.floats if plan.floats in ("bf16", "fp16") else "fp32")


def _form(plan: Plan, target: Target) -> Form:
    if plan.precision == "bf16" or (plan.precision == "fp16" and not target.floats_in_file):
        return "fp32"  # the runtime converts by its options
    return plan.precision
