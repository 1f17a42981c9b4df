"""Stage: writes a trained model as one ONNX file, in the form that a target fuses."""

import contextlib
import hashlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import onnx
import onnx.version_converter
import onnx_ir as ir
import torch
from pydantic import Field
from torch import Tensor, nn

from calibration.scheme import Encoding
from pipeline.artifacts import OnnxModel
from pipeline.errors import RecipeError
from pipeline.export.encode import encode
from pipeline.export.tidy import tidy
from pipeline.models.trained import TrainedModel
from pipeline.parts import RecipePart
from pipeline.training.quantized_model import load_any
from targets.target import TensorSpec

STAGE_VERSION = 1
TOOLCHAIN = ("torch", "onnx", "onnx-ir", "onnxscript", "numpy")

INPUT, OUTPUT = "image", "logits"
IR_VERSION = 10
LOWEST_EXPORTED = 18
"""The exporter's own opset (torch 2.13): what is older is converted from it, after what only it needs is gone."""


class Export(RecipePart):
    """How a model is written to ONNX: one file, stable names."""

    opset: int = Field(default=21, ge=18, le=23)
    """ONNX operator set; lowered to the highest that the deployment's target reads."""
    batch: Literal["static", "dynamic"] = "static"
    """`static`: one image an inference, what latency is measured on; `dynamic`: any number."""


def export_onnx(
    out_dir: Path,
    trained: TrainedModel,
    export: Export,
    *,
    encoding: Encoding | None,
    highest_opset: int,
) -> OnnxModel:
    """Write `model.onnx`: input image float32[1 or batch, C, H, W], output logits float32[1 or batch, K].

    Args:
        out_dir: gets the file.
        trained: float model, or quantized one with `encoding`.
        export: opset and batch.
        encoding: the form of Q/DQ that the target fuses; None for a float model.
        highest_opset: the highest that the target reads.

    Raises:
        RecipeError: the model cannot be exported; quotes the exporter's reason.
    """
    height, width, channels = trained.checkpoint.image_shape
    opset = min(export.opset, highest_opset)
    example = torch.zeros(1 if export.batch == "static" else 2, channels, height, width)
    exported_opset = max(opset, LOWEST_EXPORTED)
    model = _exported(load_any(trained), example, exported_opset, is_dynamic=export.batch == "dynamic")
    tidy(model, name="edgeproof")
    if encoding is not None:
        encode(model.graph, encoding)
        tidy(model, name="edgeproof")
    proto = _lowered(ir.to_proto(model), opset)
    onnx.checker.check_model(proto, full_check=True)
    path = out_dir / "model.onnx"
    onnx.save(proto, path)
    batch = 1 if export.batch == "static" else None
    return OnnxModel(
        path=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size_bytes=path.stat().st_size,
        opset=opset,
        precision="fp32" if encoding is None else "int8",
        input=TensorSpec(INPUT, "float32", (batch, channels, height, width)),
        output=TensorSpec(OUTPUT, "float32", (batch, len(trained.checkpoint.classes))),
    )


def _exported(network: nn.Module, example: torch.Tensor, opset: int, *, is_dynamic: bool) -> ir.Model:
    shapes = ({0: torch.export.Dim("batch")},) if is_dynamic else None
    try:
        with _quiet(), _shapes_of_fake_quantization():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                verbose=False,
                external_data=False,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=shapes,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise RecipeError(
            f"student.model: expected a model that torch.export can capture; got {reason}. Take data-dependent Python "
            "out of forward"
        ) from error
    assert program is not None
    return program.model


def _lowered(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    try:
        lowered = proto if opset >= LOWEST_EXPORTED else onnx.version_converter.convert_version(proto, opset)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise RecipeError(
            f"student.model: expected operators of opset {opset}, the highest that the target reads; got: {reason}"
        ) from error
    lowered.ir_version = IR_VERSION
    return lowered


@contextlib.contextmanager
def _shapes_of_fake_quantization() -> Iterator[None]:
    """Tell torch.export the shapes that fake quantization gives: torch 2.13 knows them for static shapes only."""

    def give_shapes(x: Tensor, *grid: object) -> tuple[Tensor, Tensor]:
        return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)

    with torch.library._scoped_library("aten", "IMPL", "Meta") as library:
        library.impl("_fake_quantize_per_tensor_affine_cachemask_tensor_qparams", give_shapes)
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes on packages that are not needed (torch 2.13)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
