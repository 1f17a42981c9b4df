"""Small float ONNX models that are quantized in tests."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, CLASSES = 8, 3


def two_convolutions(*, normalized: bool = False, batch: int | None = 1) -> onnx.ModelProto:
    """Conv, (BatchNormalization,) Relu, Conv, Relu, GlobalAveragePool, Flatten: image float32[batch, 3, 8, 8]."""
    random = np.random.default_rng(0)
    weights = {
        "first.weight": random.normal(0, 0.3, (4, 3, 3, 3)),
        "second.weight": random.normal(0, 0.3, (CLASSES, 4, 3, 3)),
        "first.bias": random.normal(0, 0.1, 4),
        "second.bias": random.normal(0, 0.1, CLASSES),
        **({"ones": np.ones(4), "zeros": np.zeros(4), "variance": np.full(4, 0.5)} if normalized else {}),
    }
    nodes = [
        helper.make_node("Conv", ["image", "first.weight", "first.bias"], ["a"], name="first", pads=[1] * 4),
        *(
            [helper.make_node("BatchNormalization", ["a", "ones", "zeros", "zeros", "variance"], ["n"], name="norm")]
            if normalized
            else []
        ),
        helper.make_node("Relu", ["n" if normalized else "a"], ["b"], name="first_relu"),
        helper.make_node("Conv", ["b", "second.weight", "second.bias"], ["c"], name="second", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"], name="second_relu"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], name="pool"),
        helper.make_node("Flatten", ["e"], ["logits"], name="flatten"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch or "N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch or "N", CLASSES])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
