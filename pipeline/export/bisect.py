"""Where a quantized model parts from its float one: layer by layer, the first tensor whose noise is too large.

Rule: tensors are matched by the names that both files give them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from pipeline.export.tapped import RunTapped
from pipeline.measuring.similarity import Similarity

LEAST_SNR_DB = 20.0
"""Noise of a hundredth of the signal's power: eight bits over a tensor's whole range leave about 40 dB."""
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


@dataclass(frozen=True)
class NoisyTensor:
    """One tensor in both models."""

    tensor: str
    node: str
    """Name of the node that gives it in the float model."""
    op_type: str
    snr_db: float
    """Signal to noise over all samples; infinite where nothing differs."""
    max_abs_diff: float


def find_divergence(
    float_model: onnx.ModelProto,
    quantized_model: onnx.ModelProto,
    run: RunTapped,
    *,
    least_snr_db: float = LEAST_SNR_DB,
) -> tuple[NoisyTensor, ...]:
    """Return the tensors whose signal to noise ratio is below `least_snr_db`, first to last as the model computes them.

    A tensor that is quantized is compared behind its DequantizeLinear, as the layers after it read it. What only one of
    the models has (fused, folded or renamed) is passed over.

    Args:
        float_model: the truth.
        quantized_model: the same model with QuantizeLinear and DequantizeLinear.
        run: runs either on the same samples.
        least_snr_db: what is tolerated.

    Raises:
        DataError, ModelRefused: as `run` raises.
    """
    found = compare_tensors(float_model, quantized_model, run)
    return tuple(tensor for tensor in found if tensor.snr_db < least_snr_db)


def compare_tensors(
    float_model: onnx.ModelProto, quantized_model: onnx.ModelProto, run: RunTapped
) -> tuple[NoisyTensor, ...]:
    """Return every tensor that both models have, in the order in which the float model computes them."""
    pairs = match_tensors(float_model, quantized_model)
    similarities = {name: Similarity() for name in pairs}
    expected_runs = run(float_model, list(pairs))
    found_runs = run(quantized_model, list(dict.fromkeys(pairs.values())))
    for expected, found in zip(expected_runs, found_runs, strict=True):
        for name, counterpart in pairs.items():
            if expected[name].shape == found[counterpart].shape:
                similarities[name].add(expected[name], found[counterpart])
    producers = {output: node for node in float_model.graph.node for output in node.output}
    return tuple(
        NoisyTensor(name, producers[name].name, producers[name].op_type, similarity.snr_db, similarity.max_abs_diff)
        for name, similarity in similarities.items()
        if similarity.num_values
    )


def match_tensors(float_model: onnx.ModelProto, quantized_model: onnx.ModelProto) -> Mapping[str, str]:
    """Return, for each tensor of floats that both models compute, its name in the float and in the quantized model."""
    dequantized = _dequantized(quantized_model.graph)
    computed = {name for node in quantized_model.graph.node for name in node.output}
    floats = _float_tensors(float_model)
    names = [name for node in float_model.graph.node for name in node.output if name in floats & computed]
    return {name: dequantized.get(name, name) for name in names}


def _dequantized(graph: onnx.GraphProto) -> dict[str, str]:
    """Return, for each tensor that is quantized, the tensor behind its first DequantizeLinear."""
    read = {}
    for node in reversed(graph.node):
        if node.op_type == "DequantizeLinear":
            read[node.input[0]] = node.output[0]
    quantizers = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    return {source: read[codes] for source, codes in quantizers.items() if codes in read}


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    told = [*graph.value_info, *graph.output]
    return {value.name for value in told if value.type.tensor_type.elem_type in FLOATS}
