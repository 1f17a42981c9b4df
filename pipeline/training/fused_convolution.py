"""Convolution, sum and ReLU in one pass over memory, for inference on a CPU: oneDNN applies the last two as it stores.

Rule: a fused layer computes what the plain ones do, in any precision and on any device; where oneDNN cannot, it calls
them. The choice depends on the input alone, never on a timing, so a resumed run meets the same values.
"""

import operator
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pipeline.training.features import works_in_place

ADDITIONS = (operator.add, torch.add)
RELUS = (F.relu, torch.relu)


class FusedConvolution(nn.Module):
    """relu(convolution(x)), or relu(convolution(x) + other); the weights do not change once it has run."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self._packed: tuple[tuple[object, ...], Tensor] | None = None

    def forward(self, x: Tensor, other: Tensor | None = None, may_overwrite: bool = False) -> Tensor:
        """Return float[N, out_channels, H', W'], channels_last where `x` is; in `other`'s memory if that is allowed."""
        if not self._is_fusible(x, other):
            y = self.convolution(x)
            return F.relu(y if other is None else y + other)
        layer = self.convolution
        geometry = (layer.padding, layer.stride, layer.dilation, layer.groups)
        operations = torch.ops.mkldnn._convolution_pointwise
        if other is None:
            y = operations(x, self._weight(x), layer.bias, *geometry, "relu", [], "")
        elif may_overwrite:  # oneDNN sums into memory faster than it reads a third tensor
            operations = torch.ops.mkldnn._convolution_pointwise_
            y = operations.binary(other, x, self._weight(x), layer.bias, *geometry, "add", 1.0, "relu", [], "")
        else:
            y = operations.binary(x, other, self._weight(x), layer.bias, *geometry, "add", None, "relu", [], "")
        return cast(Tensor, y)

    def _is_fusible(self, x: Tensor, other: Tensor | None) -> bool:
        weight = self.convolution.weight
        tensors = [tensor for tensor in (x, other, weight, self.convolution.bias) if tensor is not None]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return False
        if {(tensor.device.type, tensor.dtype) for tensor in tensors} != {("cpu", weight.dtype)} or x.ndim != 4:
            return False
        return _computes(weight.dtype) and (other is None or self._can_add(x, other))

    def _can_add(self, x: Tensor, other: Tensor) -> bool:
        """Return whether oneDNN adds here: its sums in bfloat16 know no groups, and no layout but channels_last."""
        if self.convolution.groups != 1 or other.shape != self._shape(x):
            return False
        return all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (x, other))

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        layer = self.convolution
        assert isinstance(layer.padding, tuple)
        margins = zip(x.shape[2:], layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True)
        sides = ((size + 2 * pad - gap * (side - 1) - 1) // step + 1 for size, pad, gap, side, step in margins)
        return (x.shape[0], layer.out_channels, *sides)

    def _weight(self, x: Tensor) -> Tensor:
        """Return the weight in the order that oneDNN wants for inputs of this shape, kept for the next one."""
        layer = self.convolution
        key = (x.shape, layer.weight.dtype, layer.weight.data_ptr())
        if self._packed is None or self._packed[0] != key:
            reorder = torch.ops.aten.mkldnn_reorder_conv2d_weight
            geometry = (layer.padding, layer.stride, layer.dilation, layer.groups)
            self._packed = (key, reorder(layer.weight.detach().to_mkldnn(), *geometry, x.shape))
        return self._packed[1]


def fuse_convolutions(graph_module: fx.GraphModule) -> None:
    """Fuse each ReLU with the convolution (and the sum) that it alone reads; in place, for inference.

    A convolution that others read too, a feature for instance, stays as it is.
    """
    graph = graph_module.graph
    modules = dict(graph_module.named_modules())
    for relu in [node for node in graph.nodes if _is_relu(node, modules)]:
        found = _operands(relu.args[0], graph_module, modules)
        if found is None:
            continue
        convolution, others = found
        name = f"{convolution.target}_fused".replace(".", "_")
        if name not in modules:
            modules[name] = FusedConvolution(cast(nn.Conv2d, modules[str(convolution.target)]))
            graph_module.add_module(name, modules[name])
        before = relu.args[0]
        overwrites = any(_is_spent(other, before, convolution, modules) for other in others)
        with graph.inserting_before(before):
            fused = graph.call_module(name, (convolution.args[0], *others, *(True,) * overwrites))
        relu.replace_all_uses_with(fused)
        for node in dict.fromkeys((relu, before, convolution)):
            graph.erase_node(node)
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()


def is_square(layer: nn.Conv2d) -> bool:
    """Return whether a layer is of the kind that kernels of ours compute: 1 x 1 or 3 x 3, zeros around, one group."""
    side, stride = layer.kernel_size[0], layer.stride[0]
    shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode)
    return side in (1, 3) and shape == ((side, side), (stride, stride), (side // 2, side // 2), (1, 1), 1, "zeros")


def is_hooked(layer: nn.Module) -> bool:
    """Return whether somebody listens to what a layer takes or gives."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return any(hooks)


def _operands(
    before: object, network: nn.Module, modules: dict[str, nn.Module]
) -> tuple[fx.Node, tuple[fx.Node, ...]] | None:
    """Return the convolution that a ReLU reads and what is added to it; None where they cannot be fused."""
    if not isinstance(before, fx.Node):
        return None
    if _is_convolution(before, modules):
        return before, ()
    is_sum = before.op == "call_function" and before.target in ADDITIONS and len(before.users) == 1
    if not is_sum or before.kwargs or len(before.args) != 2:
        return None
    first, second = before.args
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node) or first is second:
        return None
    for convolution, other in ((first, second), (second, first)):
        if _is_convolution(convolution, modules) and not _is_late(convolution, before, network, modules):
            return convolution, (other,)
    return None


def _is_late(convolution: fx.Node, place: fx.Node, network: nn.Module, modules: dict[str, nn.Module]) -> bool:
    """Return whether what a convolution reads may be overwritten before `place`, by a fused one for instance."""
    node = convolution.next
    while node is not place:
        if works_in_place(node, network) or _overwrites(node, modules):
            return True
        node = node.next
    return False


def _overwrites(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Return whether a fused convolution gives its sum in the memory of what it adds."""
    is_fused = node.op == "call_module" and isinstance(modules[str(node.target)], FusedConvolution)
    return is_fused and len(node.args) == 3


def _is_spent(other: fx.Node, place: fx.Node, convolution: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Return whether `other` may be overwritten: a convolution gave it, only convolutions before `place` read it."""

    def is_a(node: object, *kinds: type[nn.Module]) -> bool:
        return isinstance(node, fx.Node) and node.op == "call_module" and type(modules[str(node.target)]) in kinds

    names = [other]
    while is_a(names[-1], nn.Identity):
        names.append(cast(fx.Node, names[-1].args[0]))
    if not is_a(names[-1], FusedConvolution, nn.Conv2d) or convolution.args[0] in names:
        return False
    readers = {user for name in names for user in name.users} - {place, *names}
    return all(is_a(reader, FusedConvolution, nn.Conv2d) and reader < place for reader in readers)


def _is_convolution(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    layer = modules.get(str(node.target)) if node.op == "call_module" else None
    if type(layer) is not nn.Conv2d or len(node.users) != 1 or len(node.args) != 1:
        return False
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and not is_hooked(layer)


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return type(modules[str(node.target)]) is nn.ReLU
    return node.op == "call_function" and node.target in RELUS


def _computes(dtype: torch.dtype) -> bool:
    """Return whether oneDNN convolves in this precision on this CPU."""
    if not torch._C._has_mkldnn:
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))
