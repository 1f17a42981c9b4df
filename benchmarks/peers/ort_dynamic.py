"""ONNX Runtime's dynamic quantization: int8 weights, activations quantized as they come.

Rule: imports nothing of Edgeproof; runs in an environment of its own.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from request import read_request

OPERATORS = {"default": None, "matmul": ["MatMul", "Gemm"]}
"""By variant: what is quantized; by default convolutions too, as ConvInteger."""


def main() -> None:
    """Quantize; the shapes that torch's exporter notes are deleted first: with them it fails (ONNX Runtime 1.31)."""
    request = read_request(__doc__, tuple(OPERATORS))
    model = onnx.load(request.model)
    del model.graph.value_info[:]
    with TemporaryDirectory() as folder:
        without_shapes = Path(folder) / "without_shapes.onnx"
        onnx.save(model, without_shapes)
        quantize_dynamic(
            without_shapes, request.out, op_types_to_quantize=OPERATORS[request.variant], weight_type=QuantType.QInt8
        )


if __name__ == "__main__":
    main()
