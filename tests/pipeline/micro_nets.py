"""Micro networks as encode quantizes them: convolution, one construct, convolution, on image float32[1, 16, 32, 32]."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 16
SHAPE = (1, CHANNELS, 32, 32)
SCALE = 0.02


class Net:
    """Builds one graph; every node gets a name of its own, as `n7/Conv`."""

    def __init__(self, signed: str) -> None:
        self.signed = signed
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)
        self._num_names = 0

    def const(self, value: object) -> str:
        name = f"c{self._next()}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, op_type: str, *inputs: str, outputs: list[str] | None = None, **attributes: object) -> str:
        name = f"n{self._next()}/{op_type}"
        written = outputs or [f"{name}:0"]
        self.nodes.append(helper.make_node(op_type, list(inputs), written, name=name, **attributes))
        return written[0]

    def quantized(self, x: str, *, nonnegative: bool = False, scale: float = SCALE) -> str:
        dtype = "uint8" if nonnegative else self.signed
        zero_point = 128 if dtype == "uint8" and not nonnegative else 0
        grid = (self.const(np.float32(scale)), self.const(np.array(zero_point, dtype)))
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, *grid), *grid)

    def weight(self, *shape: int, axis: int = 0, zero_point: int = 0) -> str:
        codes = self.random.integers(-127, 128, shape).astype(np.int8)
        scale = np.full(shape[axis], 0.02 / np.sqrt(np.prod(shape[1:])), np.float32)
        zeros = np.full(shape[axis], zero_point, np.int8)
        return self.add("DequantizeLinear", self.const(codes), self.const(scale), self.const(zeros), axis=axis)

    def conv(self, x: str, channels_in: int = CHANNELS, size: int = 3, weight: str | None = None) -> str:
        kernel = weight or self.weight(CHANNELS, channels_in, size, size)
        bias = self.const(np.zeros(CHANNELS, np.float32))
        return self.add("Conv", x, kernel, bias, kernel_shape=[size, size], pads=[size // 2] * 4)

    def model(self, last: str) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPE)
        output = helper.make_tensor_value_info(last, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "micro", [image], [output], self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    def _next(self) -> int:
        self._num_names += 1
        return self._num_names


Build = Callable[[Net, str], str]


def between_convolutions(build: Build, signed: str) -> onnx.ModelProto:
    """Return image, convolution, `build`, convolution and global pooling, with a Q/DQ on every tensor between."""
    net = Net(signed)
    x = net.quantized(net.conv(net.quantized("image", nonnegative=True)))
    x = net.quantized(build(net, x))
    return net.model(net.add("GlobalAveragePool", net.quantized(net.conv(x))))


def one(op_type: str, **attributes: object) -> Build:
    """Return how to build one operator of one input."""
    return lambda net, x: net.add(op_type, x, **attributes)


def per_channel(op_type: str, num_constants: int, size: int = CHANNELS, **attributes: object) -> Build:
    """Return how to build an operator that also takes constants float32[size], all ones."""
    return lambda net, x: net.add(
        op_type, x, *(net.const(np.ones(size, np.float32)) for _ in range(num_constants)), **attributes
    )


def hard_sigmoid(net: Net, x: str) -> str:
    return net.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)


def resized(mode: str) -> Build:
    attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"} if mode == "nearest" else {}
    scales = np.array([1, 1, 2, 2], np.float32)
    return lambda net, x: net.add("Resize", x, "", net.const(scales), mode=mode, **attributes)


def mean_added(net: Net, x: str) -> str:
    mean = net.add("ReduceMean", x, net.const(np.array([2, 3])), keepdims=1)
    return net.add("Add", x, net.quantized(mean))


BUILDS: dict[tuple[str, ...], Build] = {
    ("HardSwish",): one("HardSwish"),
    ("HardSigmoid", "Mul"): lambda net, x: net.add("Mul", x, hard_sigmoid(net, x)),
    ("Sigmoid", "Mul"): lambda net, x: net.add("Mul", x, net.add("Sigmoid", x)),
    ("Softplus", "Tanh", "Mul"): lambda net, x: net.add("Mul", x, net.add("Tanh", net.add("Softplus", x))),
    ("HardSigmoid",): hard_sigmoid,
    ("PRelu",): lambda net, x: net.add("PRelu", x, net.const(np.full((CHANNELS, 1, 1), 0.2, np.float32))),
    **{(name,): one(name) for name in ("Mish", "Gelu", "Erf", "Elu", "Tanh", "Softplus", "Exp", "Relu")},
    ("Softmax",): one("Softmax", axis=1),
    ("LayerNormalization",): per_channel("LayerNormalization", 2, size=SHAPE[-1]),
    ("InstanceNormalization",): per_channel("InstanceNormalization", 2),
    ("GroupNormalization",): per_channel("GroupNormalization", 2, num_groups=4),
    ("BatchNormalization",): per_channel("BatchNormalization", 4),
    ("ReduceMean",): mean_added,
    ("Resize",): resized("linear"),
    ("ConvTranspose",): lambda net, x: net.add(
        "ConvTranspose", x, net.weight(CHANNELS, CHANNELS, 2, 2, axis=1), strides=[2, 2], kernel_shape=[2, 2]
    ),
    ("Pad",): lambda net, x: net.add("Pad", x, net.const(np.array([0, 0, 1, 1, 0, 0, 1, 1]))),
    ("Sub",): lambda net, x: net.add("Sub", x, net.quantized(net.add("MaxPool", x, kernel_shape=[1, 1]))),
    ("Div",): lambda net, x: net.add("Div", x, net.const(np.float32(2.0))),
    ("Clip",): lambda net, x: net.add("Clip", x, net.const(np.float32(0)), net.const(np.float32(6))),
}
"""A construct for every cause that a target declares, by its operators."""
