"""What TensorRT's integer grid can hold, as rules over the Q/DQ of an ONNX file, in words its parser does not have.

Rule: one function a rule, each true by NVIDIA's documents (explicit quantization, TensorRT 8.5 to 11). The parser alone
is not enough: it reads uint8 codes with zero point 0 as int8 with no more than a warning, and clips half of them.
Python 3.8; onnx is imported when it runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, List, Mapping, Optional, Tuple

import numpy as np

from targets.acceptance import Objection

if TYPE_CHECKING:
    import onnx

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
INTEGER_OPS = ("ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QGemm")
INTEGER_FAMILIES = ("QLinear", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")
"""How the names of integer operators begin, those of ONNX Runtime's own domain too."""
WEIGHT_AXES: Mapping[str, int] = {"Conv": 0, "ConvTranspose": 1}
"""Axis of the output channels, the one that a scale a channel may lie along."""
OURS = "quantize the float model for this target: edgeproof quantize MODEL.onnx --data DIR --target tensorrt"


@dataclass(frozen=True)
class Grid:
    """A Q or DQ node, and what is known of it from the file alone."""

    node: "onnx.NodeProto"
    scale: Optional[np.ndarray]
    """None where it is computed."""
    zero_point: Optional[np.ndarray]
    """None where it is computed, or left out."""
    codes: str
    """NumPy's name of the type of the codes."""
    is_constant: bool
    """Whether a weight or a bias is on it."""
    axis: int
    readers: Tuple[str, ...]
    """Operators that read it, by type."""


Rule = Callable[[Grid], Optional[Tuple[str, str]]]
"""Returns reason and remedy where it is broken."""


def find_objections(model: Path) -> Tuple[Objection, ...]:
    """Return every rule that the file breaks, with the first node that does and how many do.

    A file that is no ONNX breaks none: the parser says what is wrong with it.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(str(model), load_external_data=False).graph
    except DecodeError:
        return ()
    found: Dict[Tuple[str, str], Objection] = {}
    for reason, remedy, node in _broken(graph):
        known = found.get((reason, remedy))
        found[reason, remedy] = (
            replace(known, num_nodes=known.num_nodes + 1)
            if known
            else Objection("grid", reason, remedy, node=node.name, op_type=node.op_type)
        )
    return tuple(found.values())


def read_opset(model: Path) -> int:
    """Return the operator set of a file; 0 where it is no ONNX."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load(str(model), load_external_data=False)
    except DecodeError:
        return 0
    return max((each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")), default=0)


def _broken(graph: "onnx.GraphProto") -> List[Tuple[str, str, "onnx.NodeProto"]]:
    broken = [
        ("expected Q/DQ around float operators; got operators of integers", OURS, node)
        for node in graph.node
        if node.op_type in INTEGER_OPS or node.op_type.startswith(INTEGER_FAMILIES)
    ]
    for grid in _grids(graph):
        answers = (rule(grid) for rule in RULES)
        broken += [(*answer, grid.node) for answer in answers if answer][:1]  # the first says it best
    return broken


def _grids(graph: "onnx.GraphProto") -> List[Grid]:
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    readers: Dict[str, List[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    folded = set(constants)
    grids = []
    for node in graph.node:
        if node.op_type not in (QUANTIZE, DEQUANTIZE) or len(node.input) < 2:
            continue
        is_constant = node.input[0] in folded
        if is_constant:
            folded.add(node.output[0])
        scale, zero_point = (
            numpy_helper.to_array(constants[name]) if name in constants else None for name in (*node.input[1:3], "")[:2]
        )
        grids.append(
            Grid(
                node,
                scale,
                zero_point,
                codes=_codes(node, zero_point, constants),
                is_constant=is_constant,
                axis=next((helper.get_attribute_value(each) for each in node.attribute if each.name == "axis"), 1),
                readers=tuple(readers.get(node.output[0], ())),
            )
        )
    return grids


def _codes(
    node: "onnx.NodeProto", zero_point: Optional[np.ndarray], constants: Mapping[str, "onnx.TensorProto"]
) -> str:
    """Return the type of a node's codes; without a zero point ONNX's default, uint8, for a Q."""
    from onnx import helper

    if zero_point is not None:
        return str(zero_point.dtype)
    if node.op_type == DEQUANTIZE and node.input[0] in constants:
        return str(helper.tensor_dtype_to_np_dtype(constants[node.input[0]].data_type))
    told = next((each.i for each in node.attribute if each.name == "output_dtype" and each.i), None)
    if told is not None:
        return str(helper.tensor_dtype_to_np_dtype(told))
    return "uint8" if node.op_type == QUANTIZE and len(node.input) < 3 else "unknown"


def _computed_scale(grid: Grid) -> Optional[Tuple[str, str]]:
    if grid.scale is not None:
        return None
    return "expected scales that are constants; got scales that the graph computes", OURS


def _integer_bias(grid: Grid) -> Optional[Tuple[str, str]]:
    if grid.codes != "int32":
        return None
    return (
        "expected biases in float; got int32 codes behind DequantizeLinear",
        f"{OURS}; with ONNX Runtime's own quantizer: extra_options={{'QuantizeBias': False}}",
    )


def _unsigned(grid: Grid) -> Optional[Tuple[str, str]]:
    if grid.codes != "uint8":
        return None
    return (
        "expected int8 codes; got uint8, which the parser would read as int8 and clip at 127",
        f"{OURS}; with ONNX Runtime's own quantizer: activation_type=QInt8, ActivationSymmetric",
    )


def _shifted(grid: Grid) -> Optional[Tuple[str, str]]:
    if grid.zero_point is None or not grid.zero_point.astype(np.float64).any():
        return None
    return (
        "expected zero points of 0; got others: an asymmetric grid",
        f"{OURS}; with ONNX Runtime's own quantizer: ActivationSymmetric and WeightSymmetric",
    )


def _channels_of_activations(grid: Grid) -> Optional[Tuple[str, str]]:
    if grid.is_constant or grid.scale is None or grid.scale.size == 1:
        return None
    return "expected one scale for each activation; got one a channel", OURS


def _axis_of_weights(grid: Grid) -> Optional[Tuple[str, str]]:
    axes = [WEIGHT_AXES[reader] for reader in grid.readers if reader in WEIGHT_AXES]
    if not grid.is_constant or grid.scale is None or grid.scale.size == 1 or not axes or grid.axis in axes:
        return None
    return f"expected a scale for each output channel of a weight, along axis {axes[0]}; got axis {grid.axis}", OURS


RULES: Tuple[Rule, ...] = (
    _computed_scale,
    _integer_bias,
    _unsigned,
    _shifted,
    _channels_of_activations,
    _axis_of_weights,
)
