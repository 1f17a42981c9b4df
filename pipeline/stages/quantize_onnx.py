"""Stage: puts a float ONNX model on a target's int8 grid, by ranges that were observed, in the form that it fuses."""

from pathlib import Path

import onnx
import onnx_ir as ir

from calibration.scheme import Encoding, Scheme
from pipeline.artifacts import OnnxFile, Ranges
from pipeline.export.encode import encode
from pipeline.export.observed import quantize_observed
from pipeline.export.onnx_file import write_onnx
from pipeline.export.tidy import tidy

STAGE_VERSION = 2
TOOLCHAIN = ("onnx", "onnx-ir", "numpy")


def quantize_onnx(
    out_dir: Path,
    prepared: OnnxFile,
    ranges: Ranges,
    scheme: Scheme,
    encoding: Encoding,
    float_layers: tuple[str, ...] = (),
) -> OnnxFile:
    """Write `model.onnx` with explicit Q/DQ.

    Args:
        out_dir: gets the file.
        prepared: from `prepare_onnx`.
        ranges: of its tensors, from `observe_ranges`.
        scheme: the grid.
        encoding: the form of Q/DQ that the target fuses.
        float_layers: names of nodes that stay in float, or prefixes of them that end before "." or "/".

    Raises:
        RecipeError: nothing in the model can be quantized.
        DataError: what was written is no valid model.
    """
    model = ir.from_proto(onnx.load(str(prepared.path)))
    name = model.graph.name or "edgeproof"
    quantize_observed(model.graph, ranges, scheme, float_layers=frozenset(float_layers))
    encode(model.graph, encoding)
    tidy(model, name=name)
    return write_onnx(ir.to_proto(model), out_dir / "model.onnx", precision="int8")
