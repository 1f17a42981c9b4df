"""Stage: writes a trained model as one ONNX file, in the form that a target fuses."""

from pathlib import Path
from typing import Literal

import onnx_ir as ir
import torch
from pydantic import Field

from calibration.scheme import Encoding
from pipeline.artifacts import OnnxModel
from pipeline.errors import RecipeError
from pipeline.export.capture import INPUT, LOWEST_EXPORTED, OUTPUT, capture
from pipeline.export.dynamic import quantize_dynamic
from pipeline.export.encode import encode
from pipeline.export.floats import to_float16
from pipeline.export.input_form import take_bytes
from pipeline.export.opset import lower
from pipeline.export.tidy import tidy
from pipeline.export.write import digest, write_model
from pipeline.models.trained import TrainedModel
from pipeline.parts import RecipePart
from pipeline.training.quantized_model import load_any
from targets.processing import Processing
from targets.target import TensorSpec

STAGE_VERSION = 5
TOOLCHAIN = ("torch", "onnx", "onnx-ir", "onnxscript", "numpy")

FloatForm = Literal["fp32", "fp16", "int8_dynamic", "int8_dynamic_per_tensor"]
"""How a file holds the operators that were not trained on codes."""


class Export(RecipePart):
    """How a model is written to ONNX: one file, stable names."""

    opset: int = Field(default=21, ge=17, le=23)
    """ONNX operator set; lowered to the highest that the deployment's target reads."""
    batch: Literal["static", "dynamic"] = "static"
    """`static`: one image an inference, what latency is measured on; `dynamic`: any number."""
    input: Literal["float32_nchw", "uint8_nhwc"] = "float32_nchw"
    """What the model takes: `float32_nchw`, normalized by the application; or `uint8_nhwc`, an image's bytes as they
    are, with normalization and layout inside the model."""


def export_onnx(
    out_dir: Path,
    trained: TrainedModel,
    export: Export,
    *,
    encoding: Encoding | None,
    highest_opset: int,
    floats: FloatForm = "fp32",
    processing: Processing | None = None,
) -> OnnxModel:
    """Write `model.onnx`: an image of the recipe's form in, logits float32[1 or batch, K] out.

    Weights above 1 GB stand beside it, in `model.onnx.data`.

    Args:
        out_dir: gets the file.
        trained: float model, or quantized one with `encoding`.
        export: opset, batch and input.
        encoding: the form of Q/DQ that the target fuses; None for a float model.
        highest_opset: the highest that the target reads.
        floats: the form of what stays in float.
        processing: normalization, which a model that takes bytes does itself.

    Raises:
        RecipeError: the model cannot be exported, or not in that opset; says why.
    """
    height, width, channels = trained.checkpoint.image_shape
    opset = min(export.opset, highest_opset)
    example = torch.zeros(1 if export.batch == "static" else 2, channels, height, width)
    model = capture(load_any(trained), example, max(opset, LOWEST_EXPORTED), is_dynamic=export.batch == "dynamic")
    lower(model, opset)
    tidy(model, name="edgeproof")
    if encoding is not None:
        encode(model.graph, encoding)
    if floats in ("int8_dynamic", "int8_dynamic_per_tensor"):
        quantize_dynamic(model.graph, per_channel=floats == "int8_dynamic")
    elif floats == "fp16":
        to_float16(model)
    if export.input == "uint8_nhwc":
        _put_processing_inside(model.graph, processing, encoding)
    tidy(model, name="edgeproof")
    path = out_dir / "model.onnx"
    files = (path, *write_model(model, path))
    batch = 1 if export.batch == "static" else None
    image = (channels, height, width) if export.input == "float32_nchw" else (height, width, channels)
    return OnnxModel(
        path=path,
        sha256=digest(path),
        size_bytes=sum(file.stat().st_size for file in files),
        opset=opset,
        precision=floats.removesuffix("_per_tensor") if encoding is None else "int8",
        input=TensorSpec(INPUT, export.input.partition("_")[0], (batch, *image)),
        output=TensorSpec(OUTPUT, "float32", (batch, len(trained.checkpoint.classes))),
    )


def _put_processing_inside(graph: ir.Graph, processing: Processing | None, encoding: Encoding | None) -> None:
    if processing is None:
        raise RecipeError(
            'export.input: expected "float32_nchw" where the normalization is not known; got "uint8_nhwc"; give the '
            "task's normalization with it"
        )
    take_bytes(graph, processing, has_uint8=encoding is not None and "uint8" in (encoding.signed, encoding.nonnegative))
