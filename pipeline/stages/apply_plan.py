"""Stage: writes a prepared float model in the precision that a search chose."""

from pathlib import Path

from calibration.scheme import Scheme
from pipeline.artifacts import OnnxFile, Ranges
from pipeline.precision.build import build_plan
from pipeline.precision.plan import Plan, Precision, Rest
from targets.target import Target

STAGE_VERSION = 3
TOOLCHAIN = ("onnx", "onnx-ir", "numpy")


def apply_plan(
    out_dir: Path,
    prepared: OnnxFile,
    ranges: Ranges,
    target: Target,
    scheme: Scheme,
    *,
    precision: Precision,
    float_layers: tuple[str, ...],
    rest: Rest | None,
) -> OnnxFile:
    """Write `model.onnx`, which is the prepared model itself where the runtime converts it, or where it stays float.

    Args:
        out_dir: gets the file.
        prepared: from `prepare_onnx`.
        ranges: of its tensors, from `observe_ranges`.
        target: whose encoding is written.
        scheme: the grid.
        precision: of the plan.
        float_layers: layers that are not on the grid.
        rest: what they compute in.

    Raises:
        RecipeError: the model cannot take that precision.
    """
    plan = Plan(precision, frozenset(float_layers), rest)
    built = build_plan(prepared, ranges, target, plan, out_dir, scheme=scheme)
    if built is not prepared:
        return built
    path = out_dir / "model.onnx"
    path.write_bytes(prepared.path.read_bytes())
    return OnnxFile(
        path, prepared.sha256, prepared.size_bytes, prepared.opset, precision, prepared.inputs, prepared.outputs
    )
