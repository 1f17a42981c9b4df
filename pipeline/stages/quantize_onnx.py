"""Stage: puts a float ONNX model on a target's int8 grid, by ranges that were observed, in the form that it fuses."""

from pathlib import Path

import onnx
import onnx_ir as ir

from calibration.scheme import Encoding, Scheme
from pipeline.artifacts import OnnxFile, Ranges
from pipeline.export.onnx_file import write_onnx
from pipeline.export.rewrite import rewrite

STAGE_VERSION = 4
TOOLCHAIN = ("onnx", "onnx-ir", "numpy")


def quantize_onnx(
    out_dir: Path,
    prepared: OnnxFile,
    ranges: Ranges,
    scheme: Scheme,
    encoding: Encoding,
    float_layers: tuple[str, ...] = (),
    *,
    highest_opset: int,
) -> OnnxFile:
    """Write `model.onnx` with explicit Q/DQ.

    Args:
        out_dir: gets the file.
        prepared: from `prepare_onnx`.
        ranges: of its tensors, from `observe_ranges`.
        scheme: the grid.
        encoding: the form of Q/DQ that the target fuses.
        float_layers: names of nodes that stay in float, or prefixes of them that end before "." or "/".
        highest_opset: the highest that the target reads.

    Raises:
        RecipeError: nothing in the model can be quantized, or `highest_opset` cannot express an operator.
        DataError: what was written is no valid model.
    """
    model = ir.from_proto(onnx.load(str(prepared.path)))
    rewrite(
        model,
        "int8",
        ranges=ranges,
        scheme=scheme,
        encoding=encoding,
        highest_opset=highest_opset,
        float_layers=frozenset(float_layers),
    )
    return write_onnx(ir.to_proto(model), out_dir / "model.onnx", precision="int8")
