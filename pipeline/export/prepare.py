"""From any float ONNX model to one that can be quantized: plain, folded, named, with known shapes.

Rule: what comes out computes what went in, up to rounding in float32.
"""

import logging
from typing import Literal

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as common_rules

from pipeline.errors import RecipeError
from pipeline.export.fold import fold_into_weights
from pipeline.export.operators import constant, is_quantized
from pipeline.export.tidy import restore_global_average_pool

LOWEST_OPSET = 13
"""The first whose QuantizeLinear has an axis."""
LOWEST_IR_VERSION = 8
"""Since 4, initializers need not be inputs too; 8 is what every runtime of opset 13 and later reads."""
LARGEST_FOLDED = 2**25
"""Elements of a constant that is computed ahead: 128 MiB of float32."""
CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")

logger = logging.getLogger(__name__)


def prepare(model: ir.Model, *, opset: int, if_quantized: Literal["refuse", "keep"] = "refuse") -> ir.Model:
    """Return a model, ready for `quantize_graph`, that computes what `model` does; `model` is used up.

    Constants are folded, BatchNormalization and what else scales channels go into the weights before them, what does
    nothing is gone, and every node has a name of its own: its old one, or `node_Conv_12` where it had none.

    Args:
        model: any ONNX model; bodies of loops and branches, and operators of other domains, are left as they are.
        opset: the operator set is raised to this one, or to 13; never lowered.
        if_quantized: whether a model that is quantized already is refused, or kept: raised and named, no more.

    Raises:
        RecipeError: the model is not valid or quantized already, or its operator set cannot be raised.
    """
    if is_quantized(model) and if_quantized == "refuse":
        raise RecipeError(
            "model: expected a float model; got one with integer operators already. Give the model before it was "
            "quantized, or keep it as it is"
        )
    if any(node.op_type in CONTROL_FLOW for graph in model.graphs() for node in graph):
        logger.warning("what loops and branches hold stays in float: only operators outside of them are quantized")
    _check(model)
    common.InlinePass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    common.RemoveInitializersFromInputsPass()(model)
    model = _raised(model, max(opset, LOWEST_OPSET))
    if not is_quantized(model):
        _simplify(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    common.NameFixPass()(model)
    common.ShapeInferencePass(check_type=False, strict_mode=False)(model)
    return model


def _check(model: ir.Model) -> None:
    """Refuse operators that lack inputs; ONNX's own checker also refuses what runs: an output without a shape, say."""
    opset = model.opset_imports.get("", 1)
    for node in model.graph:
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, opset):
            continue
        least, got = onnx.defs.get_schema(node.op_type, opset).min_input, len(node.inputs)
        if got < least or any(value is None for value in node.inputs[:least]):
            raise RecipeError(
                f"model: node {node.name or node.op_type!r}: expected {least} inputs or more for {node.op_type}; got "
                f"{got}, or unnamed ones. Export it again"
            )


def _raised(model: ir.Model, opset: int) -> ir.Model:
    current = model.opset_imports.get("", opset)
    if current >= opset:
        return model
    model.ir_version = max(model.ir_version, LOWEST_IR_VERSION)
    proto = ir.to_proto(model)
    try:
        return ir.from_proto(onnx.version_converter.convert_version(proto, opset))
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RecipeError(
            f"model: expected operators that opset {opset} has too; got opset {current}: {reason}. Export it again "
            f"with opset {opset}"
        ) from error


def _simplify(model: ir.Model) -> None:
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.ShapeInferencePass(check_type=False, strict_mode=False)(model)
    optimizer.fold_constants_ir(
        model,
        input_size_limit=LARGEST_FOLDED,
        output_size_limit=LARGEST_FOLDED,
        should_fold=lambda node: True if node.op_type == "ConstantOfShape" else None,
    )
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    rewriter.rewrite(model, pattern_rewrite_rules=_rules())
    _drop_idle(model.graph)
    restore_global_average_pool(model.graph)
    common.ShapeInferencePass(check_type=False, strict_mode=False)(model)
    fold_into_weights(model.graph)


def _drop_idle(graph: ir.Graph) -> None:
    """Remove Identity and Dropout; a graph that returns what it is given, or one tensor twice, keeps them there.

    onnx-ir's own pass (1.1.0) fails where a branch or loop returns a tensor of the graph around it.
    """
    for node in list(graph):
        source, output = node.inputs[0] if node.inputs else None, node.outputs[0]
        if source is None or not _is_idle(node):
            continue
        producer = source.producer()
        if output.is_graph_output():
            if producer is None or producer.graph is not graph or source.is_graph_output():
                continue
            source.name = output.name
        ir.convenience.replace_all_uses_with(output, source, replace_graph_outputs=True)
        graph.remove(node, safe=True)


def _is_idle(node: ir.Node) -> bool:
    if node.op_type == "Dropout":
        training = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(1)
        return training is not None and not training.any() and not any(value.uses() for value in node.outputs[1:])
    return node.op_type == "Identity"


def _rules() -> list[rewriter.pattern.RewriteRule]:
    """Return what makes graphs plainer without touching what a node is called that computes."""
    return [
        *(common_rules.mul_by_1_rule, common_rules.add_0_rule, common_rules.sub_0_rule, common_rules.div_by_1_rule),
        *(common_rules.no_op_cast_rule, common_rules.no_op_expand_rule, common_rules.no_op_transpose_rule),
        *(common_rules.transpose_transpose_rule, common_rules.unsqueeze_unsqueeze_rule),
        *(common_rules.min_max_rule, common_rules.max_min_rule, common_rules.successive_clip_rule),
        *(common_rules.normalize_pad_format_conv_rule, common_rules.fuse_pad_into_conv_rule),
    ]
