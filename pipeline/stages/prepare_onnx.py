"""Stage: makes any float ONNX file ready to be quantized; what it computes stays the same."""

from pathlib import Path

import onnx_ir as ir

from pipeline.artifacts import OnnxFile
from pipeline.export.onnx_file import write_onnx
from pipeline.export.prepare import prepare
from pipeline.export.source import Source
from targets.errors import EdgeproofError

STAGE_VERSION = 1
TOOLCHAIN = ("onnx", "onnx-ir", "onnxscript", "numpy")


def prepare_onnx(out_dir: Path, source: Source, *, opset: int) -> OnnxFile:
    """Write `model.onnx`: opset raised to at least `opset`, constants and BatchNormalization folded, nodes named.

    Raises:
        DataError: the model cannot be read, or is none that ONNX's checker accepts.
        RecipeError: it cannot be prepared (quantized already, or its opset cannot be raised).
    """
    model = ir.from_proto(source.load())
    try:
        prepared = prepare(model, opset=opset)
    except EdgeproofError as error:
        raise type(error)(f"{source.path}: {error}") from error
    return write_onnx(ir.to_proto(prepared), out_dir / "model.onnx", precision="fp32")
