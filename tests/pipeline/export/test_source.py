"""Any ONNX file as it comes: what cannot be read is refused in one line."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import two_convolutions

from pipeline.canonical import canonical
from pipeline.errors import DataError
from pipeline.export.source import inputs_of, outputs_of, read_source, with_shapes


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe not a model", "bytes that are none|got none"),
        (b"", "expected an ONNX model with at least an output"),
    ],
)
def test_bytes_that_are_no_model_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_source(tmp_path / "model.onnx")


def save_with_weights_outside(folder: Path, scale: float = 1.0) -> Path:
    model = two_convolutions()
    first = model.graph.initializer[0]
    first.CopyFrom(onnx.numpy_helper.from_array(scale * onnx.numpy_helper.to_array(first), first.name))
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_weights_outside_of_the_file_are_found_count_and_are_missed(tmp_path: Path) -> None:
    path = save_with_weights_outside(tmp_path)
    source = read_source(path)
    assert source.weights == (tmp_path / "weights.bin",)
    before = canonical(source, "source")
    assert np.abs(onnx.numpy_helper.to_array(source.load().graph.initializer[0])).max() > 0
    (tmp_path / "weights.bin").unlink()
    save_with_weights_outside(tmp_path, scale=2.0)
    assert canonical(read_source(path), "source") != before
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(DataError, match=r"expected its external weights in .*weights.bin; got no such file"):
        read_source(path)


def test_an_open_size_is_none_and_initializers_are_no_inputs() -> None:
    model = two_convolutions(batch=None)
    model.graph.input.append(onnx.helper.make_tensor_value_info("first.bias", onnx.TensorProto.FLOAT, [4]))
    assert [(spec.name, spec.dtype, spec.shape) for spec in inputs_of(model)] == [("image", "float32", (None, 3, 8, 8))]


def test_open_sizes_are_fixed_in_a_copy() -> None:
    model = two_convolutions(batch=None)
    fixed = with_shapes(model, {"image": (2, 3, 8, 8)})
    assert [spec.shape for spec in inputs_of(fixed)] == [(2, 3, 8, 8)]
    assert [spec.shape for spec in inputs_of(model)] == [(None, 3, 8, 8)]
    assert [spec.shape for spec in outputs_of(onnx.shape_inference.infer_shapes(fixed, strict_mode=True))] == [(2, 3)]
