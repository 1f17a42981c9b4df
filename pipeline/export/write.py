"""Writing an ONNX model: one file, but for models too large for one, whose weights stand beside it."""

import hashlib
from pathlib import Path

import onnx
import onnx_ir as ir

from pipeline.errors import RecipeError

IR_VERSION = 10
LARGEST_FILE = 10**9
"""Bytes of weights from which they get a file of their own; protobuf ends at 2 GB."""


def write_model(model: ir.Model, path: Path, *, largest_file: int = LARGEST_FILE) -> tuple[Path, ...]:
    """Check a model and write it to `path`; return the files of weights beside it: none, or `<name>.data`.

    Raises:
        RecipeError: it is no valid ONNX; quotes the reason.
    """
    model.ir_version = IR_VERSION
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    try:
        if size > largest_file:
            return (_write_with_weights_beside(model, path),)
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RecipeError(
            f"student.model: expected a network that is valid ONNX of opset {model.opset_imports.get('')}; got: "
            f"{reason}. Set export.opset to another, or replace the operator"
        ) from error
    onnx.save(proto, path)
    return ()


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_with_weights_beside(model: ir.Model, path: Path) -> Path:
    """Write weights to a file of their own, whose digest goes into the model's file: that file's own covers both."""
    weights = path.with_name(f"{path.name}.data")
    ir.save(model, path, external_data=weights.name)
    proto = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(proto, {f"sha256 of {weights.name}": digest(weights)})
    onnx.save(proto, path)
    onnx.checker.check_model(str(path), full_check=True)
    return weights
