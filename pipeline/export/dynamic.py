"""Put a float graph's matrix products on codes whose activation ranges are found at run time, image by image.

Rule: only products with a constant matrix; what static quantization has already placed stays as it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from calibration.affine import quantize, scale_of_channels
from pipeline.errors import RecipeError
from pipeline.export.operators import constant, is_kept

PRODUCTS = ("MatMul", "Gemm")
"""Convolutions are left out: runtimes that have ConvInteger compute it slower than the float convolution."""


def quantize_dynamic(
    graph: ir.Graph, *, weight_bits: int = 8, per_channel: bool = True, float_layers: frozenset[str] = frozenset()
) -> None:
    """Rewrite every product of activations and a constant matrix, in place, as

        codes, s_x, z_x = DynamicQuantizeLinear(x)                               # uint8, one range a tensor
        y = Cast(MatMulInteger(codes, W_codes, z_x)) * (s_x * s_w) + bias        # W_codes int8, s_w[N]

    which is the pattern that runtimes fuse to one kernel. Products that read one tensor share its codes. A range covers
    the whole tensor, so with a batch above one an image's result depends a little on its neighbours.

    Args:
        graph: float, opset 11 or higher; parts between Q/DQ may be there already.
        weight_bits: bits of a weight's code, 2 to 8; always stored as int8.
        per_channel: one scale an output channel, or one a weight: less exact, and a hair faster in some runtimes.
        float_layers: names of nodes that stay in float, or prefixes of them that end before "." or "/".

    Raises:
        RecipeError: nothing is left to quantize, or a weight is not finite.
    """
    products = [product for product in _find_products(graph) if not is_kept(product.node, float_layers)]
    if not products:
        raise RecipeError(
            'precision: expected a model with a linear layer for "int8_dynamic"; got none that is not quantized '
            'already or kept in float; use precision = "int8"'
        )
    rewriter = _Rewriter(graph, weight_bits, per_channel)
    for product in products:
        rewriter.rewrite(product)


@dataclass(frozen=True)
class _Product:
    """y = alpha * (x @ matrix_KN) + beta * bias."""

    node: ir.Node
    source: ir.Value
    weight: ir.Value
    is_transposed: bool = False
    bias: ir.Value | None = None
    alpha: float = 1.0
    beta: float = 1.0


@dataclass
class _Rewriter:
    graph: ir.Graph
    weight_bits: int
    per_channel: bool
    activations: dict[ir.Value, tuple[ir.Value, ir.Value, ir.Value]] = field(default_factory=dict)
    weights: dict[tuple[ir.Value, bool], tuple[ir.Value, np.ndarray]] = field(default_factory=dict)

    def rewrite(self, product: _Product) -> None:
        """Replace one product; the value that it gave keeps its name."""
        node, output = product.node, product.node.outputs[0]
        codes, scale, zero_point = self._quantize_activation(product)
        weight_codes, weight_scale_N = self._quantize_weight(product)
        name = f"{node.name or output.name}"
        scales = self._initializer(f"{name}/scale", (product.alpha * weight_scale_N).astype(np.float32))
        total = self._add(node, "MatMulInteger", [codes, weight_codes, zero_point], name)
        as_float = self._add(node, "Cast", [total], f"{name}/Cast", {"to": ir.DataType.FLOAT})
        joint = self._add(node, "Mul", [scale, scales], f"{name}/scales")
        result = self._add(node, "Mul", [as_float, joint], f"{name}/Mul")
        if product.bias is not None:
            result = self._add(node, "Add", [result, self._scale_bias(product, name)], f"{name}/Add")
        result.dtype, result.shape, kept = ir.DataType.FLOAT, output.shape, output.name
        ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)
        result.name = kept

    def _quantize_activation(self, product: _Product) -> tuple[ir.Value, ir.Value, ir.Value]:
        source = product.source
        if source not in self.activations:
            quantizer = ir.node("DynamicQuantizeLinear", [source], num_outputs=3, name=f"{source.name}/quantize")
            for value, role in zip(quantizer.outputs, ("codes", "scale", "zero_point"), strict=True):
                value.name = f"{source.name}/{role}"
            self.graph.insert_before(product.node, quantizer)
            codes, scale, zero_point = quantizer.outputs
            self.activations[source] = (codes, scale, zero_point)
        return self.activations[source]

    def _quantize_weight(self, product: _Product) -> tuple[ir.Value, np.ndarray]:
        key = (product.weight, product.is_transposed)
        if key not in self.weights:
            matrix_KN = _array(product.weight)
            if product.is_transposed:
                matrix_KN = np.ascontiguousarray(matrix_KN.T)
            if not np.isfinite(matrix_KN).all():
                raise RecipeError(
                    f"weight {product.weight.name!r}: expected finite values; got NaN or infinity; train it again"
                )
            scale_N = scale_of_channels(matrix_KN, axis=1, bits=self.weight_bits)
            if not self.per_channel:
                scale_N = scale_N.max()
            codes = quantize(matrix_KN, scale_N, 0, "int8")
            self.weights[key] = (self._initializer(f"{product.weight.name}.codes", codes), scale_N)
        return self.weights[key]

    def _scale_bias(self, product: _Product, name: str) -> ir.Value:
        assert product.bias is not None
        if product.beta == 1.0:
            return product.bias
        return self._initializer(f"{name}/bias", (product.beta * _array(product.bias)).astype(np.float32))

    def _add(
        self,
        before: ir.Node,
        op_type: str,
        inputs: list[ir.Value],
        name: str,
        attributes: dict[str, ir.DataType] | None = None,
    ) -> ir.Value:
        node = ir.node(op_type, inputs, attributes or {}, name=name)
        node.outputs[0].name = f"{name}/output"
        self.graph.insert_before(before, node)
        return node.outputs[0]

    def _initializer(self, name: str, array: np.ndarray) -> ir.Value:
        while name in self.graph.initializers:
            name += "_"
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self.graph.register_initializer(value)
        return value


def _find_products(graph: ir.Graph) -> Iterator[_Product]:
    """Yield, in execution order, the products of float activations and a constant float32[K, N] (or [N, K])."""
    for node in graph:
        if node.domain or node.op_type not in PRODUCTS:
            continue
        source, weight = node.inputs[0], node.inputs[1]
        if source is None or weight is None or not _is_matrix(weight) or constant(source) is not None:
            continue
        producer = source.producer()
        if producer is not None and producer.op_type == "DequantizeLinear":
            continue
        if node.op_type == "MatMul":
            yield _Product(node, source, weight)
        elif not node.attributes.get_int("transA", 0):
            yield _read_gemm(node, source, weight)


def _read_gemm(node: ir.Node, source: ir.Value, weight: ir.Value) -> _Product:
    beta = node.attributes.get_float("beta", 1.0)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return _Product(
        node,
        source,
        weight,
        is_transposed=bool(node.attributes.get_int("transB", 0)),
        bias=bias,
        alpha=node.attributes.get_float("alpha", 1.0),
        beta=beta,
    )


def _is_matrix(value: ir.Value) -> bool:
    array = constant(value)
    return array is not None and array.ndim == 2 and array.dtype == np.float32


def _array(value: ir.Value) -> np.ndarray:
    array = constant(value)
    assert array is not None
    return array
