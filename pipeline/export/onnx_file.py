"""Writes ONNX files as artifacts: checked, and with the facts that later stages need."""

import hashlib
from pathlib import Path

import onnx

from pipeline.artifacts import OnnxFile
from pipeline.errors import DataError
from pipeline.export.source import inputs_of, opset_of, outputs_of


def write_onnx(proto: onnx.ModelProto, path: Path, *, precision: str) -> OnnxFile:
    """Check a model, write it and return it with its facts.

    Raises:
        DataError: ONNX's checker refuses the model, or it is larger than one file may be.
    """
    try:
        onnx.checker.check_model(proto, full_check=True)
        onnx.save(proto, str(path))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{path.name}: expected a model that ONNX's checker accepts; got: {reason}") from error
    return OnnxFile(
        path=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size_bytes=path.stat().st_size,
        opset=opset_of(proto),
        precision=precision,
        inputs=inputs_of(proto),
        outputs=outputs_of(proto),
    )
