"""Write a prepared float graph anew in another precision: the one way from a plan to a file, in search and shipping."""

from typing import Literal

import onnx_ir as ir

from calibration.scheme import Encoding, Scheme
from pipeline.artifacts import Ranges
from pipeline.export.dynamic import quantize_dynamic
from pipeline.export.encode import encode
from pipeline.export.floats import to_float16
from pipeline.export.observed import quantize_observed
from pipeline.export.opset import lower
from pipeline.export.tidy import tidy

Form = Literal["fp32", "fp16", "int8", "int8_dynamic"]
"""What stands in the file."""
Dynamic = Literal["per_channel", "per_tensor"]
"""Scales of the weights of linear layers whose ranges are found at run time."""


def rewrite(
    model: ir.Model,
    form: Form,
    *,
    ranges: Ranges,
    scheme: Scheme,
    encoding: Encoding,
    highest_opset: int,
    float_layers: frozenset[str] = frozenset(),
    dynamic: Dynamic | None = None,
) -> None:
    """Re-write a model from `prepare` in place.

    Args:
        model: float.
        form: what it becomes.
        ranges: of its tensors, for int8.
        scheme: the grid, for int8.
        encoding: the form of Q/DQ that the target fuses, for int8.
        highest_opset: the highest that the target reads.
        float_layers: names of nodes that stay in float32, or prefixes of them that end before "." or "/".
        dynamic: how the weights of dynamic linear layers are scaled; beside int8 it makes those dynamic that a plan
            keeps off the grid.

    Raises:
        RecipeError: the model cannot take that form, or has an operator that `highest_opset` cannot express.
    """
    name = model.graph.name or "edgeproof"
    if form == "int8":
        quantize_observed(model.graph, ranges, scheme, float_layers=float_layers)
        encode(model.graph, encoding, is_trained=False)  # post-training grids differ from target to target anyway
        if dynamic:
            quantize_dynamic(model.graph, per_channel=dynamic == "per_channel")
    elif form == "int8_dynamic":
        quantize_dynamic(model.graph, per_channel=dynamic != "per_tensor", float_layers=float_layers)
    elif form == "fp16":
        to_float16(model, float_layers=float_layers)
    lower(model, highest_opset)  # last: grids are placed around operators, not around what stands for them
    tidy(model, name=name)
