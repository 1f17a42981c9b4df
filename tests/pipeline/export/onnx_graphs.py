"""Small ONNX graphs in ONNX's own text, run by a runtime with its optimizations off or on."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from calibration.scheme import Scheme
from pipeline.export.encode import encode
from pipeline.export.place_onnx import Range, observed_tensors, quantize_graph
from pipeline.export.tidy import tidy
from targets import AnyTarget
from targets.onnxruntime import OnnxRuntime
from targets.target import RunOptions

Arrays = dict[str, np.ndarray]


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def parse(
    body: str, *, inputs: str = "float[1,8,8,8] x", outputs: str = "float[] y", opset: int = 17, **arrays: object
):
    """Return a model of nodes in text; `arrays` are its initializers; outputs get no shape."""
    text = f'<ir_version: 8, opset_import: ["" : {opset}, "mine" : 1]> g ({inputs}) => ({outputs}) {{{body}}}'
    proto = onnx.parser.parse_model(text)
    for name, array in arrays.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    return ir.from_proto(proto)


def copy_of(model: ir.Model) -> ir.Model:
    return ir.from_proto(onnx.ModelProto.FromString(ir.to_proto(model).SerializeToString()))


def infer(model: ir.Model, feeds: Arrays, folder: Path, optimization: str = "none") -> Arrays:
    path = folder / "infer.onnx"
    onnx.save(ir.to_proto(model), path)
    session = OnnxRuntime(graph_optimization=optimization).open(path, RunOptions())
    return {name: array.copy() for name, array in session.bind(feeds)().items()}


def observe(
    model: ir.Model, feeds: list[Arrays], folder: Path, names: tuple[str, ...] | None = None
) -> dict[str, Range]:
    """Return the smallest and largest value of every observed tensor."""
    names = observed_tensors(model.graph) if names is None else names
    tapped = ir.to_proto(model)
    given = {value.name for value in (*tapped.graph.output, *tapped.graph.input)}
    tapped.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in given)
    seen = [{**each, **infer(ir.from_proto(tapped), each, folder)} for each in feeds]
    return {
        name: Range(min(float(each[name].min()) for each in seen), max(float(each[name].max()) for each in seen))
        for name in names
    }


def quantized(
    model: ir.Model, ranges: dict[str, Range], target: type[AnyTarget], float_layers: frozenset[str] = frozenset()
) -> ir.Model:
    """Return a copy on the trained grid, in the form of a target; valid ONNX."""
    copied = copy_of(model)
    quantize_graph(copied.graph, ranges, Scheme(), float_layers=float_layers)
    encode(copied.graph, target.encoding)
    tidy(copied, name="test")
    onnx.checker.check_model(ir.to_proto(copied), full_check=True)
    return copied


def executed(model: ir.Model, target: AnyTarget, folder: Path) -> Counter[str]:
    """Count what a runtime really runs, as `operator:precision`."""
    path = folder / "executed.onnx"
    onnx.save(ir.to_proto(model), path)
    return Counter(f"{layer.op_type}:{layer.precision}" for layer in target.inspect(path, RunOptions()))


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def signal_to_noise_db(wanted: np.ndarray, got: np.ndarray) -> float:
    noise = float(((wanted.astype(np.float64) - got) ** 2).sum())
    return float(10 * np.log10((wanted.astype(np.float64) ** 2).sum() / max(noise, 1e-30)))
