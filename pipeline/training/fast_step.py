"""A network whose training step runs on kernels of our own: the same modules and parameters, called in another way.

BatchNorm is fused with the sum and the ReLU that alone read it; convolutions of the usual shapes get our gradients.
Rule: a layer decides by what it is given (bfloat16 under autocast, channels_last, on a CPU, channels in 16s) and else
calls torch's own operators, so any network may be given, and on any other machine nothing changes.
"""

import math
import operator
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pipeline.training.features import traced, works_in_place
from pipeline.training.fused_convolution import RELUS, is_hooked, is_square
from pipeline.training.kernels.library import find_library
from pipeline.training.kernels.operators import (
    CHANNELS_LAST,
    LANES,
    Norm,
    batch_norm,
    convolution,
    convolution_norm,
)

SUMS = (operator.add, torch.add, operator.iadd)
MOST_CHANNELS = 256
"""Of wider layers oneDNN's kernels are as fast, and ours would keep a large sum for each thread."""


class KernelConvolution(nn.Module):
    """A convolution of side 1 or 3 and stride 1 or 2."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer returns, as bfloat16 where autocast asks for that."""
        if not _is_convolved(x, self.layer):
            return cast(Tensor, self.layer(x))
        return convolution(x.to(torch.bfloat16), self.layer.weight, self.layer.stride[0])


class KernelBatchNorm(nn.Module):
    """relu(BatchNorm(x) + other), the sum and the ReLU only where there are such."""

    def __init__(self, layer: nn.BatchNorm2d, *, with_relu: bool) -> None:
        super().__init__()
        self.layer, self.with_relu = layer, with_relu

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Return the sum of both, normalized by the batch in training; moves the running statistics."""
        fits = _is_normalized(x.shape, self.layer) and _is_ours(x) and (other is None or _is_like(other, x.shape))
        if not fits:
            return _plain_norm(x, self.layer, other, self.with_relu)
        return batch_norm(x, _norm_of(self.layer), other=other, with_relu=self.with_relu)


class KernelConvolutionNorm(nn.Module):
    """relu(BatchNorm(convolution(x)) + other), the sum and the ReLU only where there are such."""

    def __init__(self, layer: nn.Conv2d, norm: nn.BatchNorm2d, *, with_relu: bool) -> None:
        super().__init__()
        self.layer, self.norm, self.with_relu = layer, norm, with_relu

    def forward(self, x: Tensor, other: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the sum, and x for whoever reads it after this layer."""
        weight, stride = self.layer.weight, self.layer.stride[0]
        shape = (len(x), len(weight), *((size - 1) // stride + 1 for size in x.shape[2:]))
        fits = _is_convolved(x, self.layer) and _is_normalized(shape, self.norm)
        if not fits or (other is not None and not _is_like(other, shape)):
            return _plain_norm(self.layer(x), self.norm, other, self.with_relu), x
        norm = _norm_of(self.norm)
        y, passed = convolution_norm(x.to(torch.bfloat16), weight, norm, stride, other=other, with_relu=self.with_relu)
        return y, passed if x.dtype == torch.bfloat16 else x


def with_kernels(network: nn.Module) -> nn.Module:
    """Return a network for training steps on a CPU in bfloat16 that shares all modules with `network`.

    It takes over each module's mode (training or not). Where there are no kernels, or the network cannot be traced
    without changing what it does, that is `network` itself.
    """
    library = find_library()
    if library is None or _needs_containers(network):
        return network
    with torch.autocast("cpu", torch.bfloat16):  # as in training: a forward that leaves it then shows
        graph_module = traced(network)
    if graph_module is None:
        return network
    modules = dict(graph_module.named_modules())
    nodes = [node for node in graph_module.graph.nodes if _calls_with_one(node)]
    for node in nodes:
        if is_fusible_norm(modules[str(node.target)]):
            _place_norm(graph_module, node, modules, with_convolution=library.convolutions)
    for node in nodes:
        layer = modules[str(node.target)]
        if library.convolutions and node in graph_module.graph.nodes and is_usual_convolution(layer):
            _replace(graph_module, node, KernelConvolution(cast(nn.Conv2d, layer)), node.args, at=node)
    graph_module.graph.lint()
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    return graph_module


def _calls_with_one(node: fx.Node) -> bool:
    return node.op == "call_module" and len(node.args) == 1 and not node.kwargs


def _needs_containers(network: nn.Module) -> bool:
    """Return whether modules do more than their operators say: somebody listens to one, or it chooses its own mode."""
    tracer = fx.Tracer()
    for module in network.modules():
        stays = module is not network and tracer.is_leaf_module(module, "")
        if type(module).train is not nn.Module.train or (is_hooked(module) and not stays):
            return True
    return False


def is_usual_convolution(layer: nn.Module | None) -> bool:
    """Return whether the kernels compute this layer."""
    if type(layer) is not nn.Conv2d or is_hooked(layer) or layer.bias is not None or not is_square(layer):
        return False
    is_small = max(layer.in_channels, layer.out_channels) <= MOST_CHANNELS
    return is_small and layer.stride[0] in (1, 2) and layer.out_channels % LANES == 0


def is_fusible_norm(layer: nn.Module | None) -> bool:
    """Return whether the kernels compute this layer."""
    if type(layer) is not nn.BatchNorm2d or is_hooked(layer) or layer.num_features % LANES:
        return False
    return layer.affine and layer.track_running_stats and layer.momentum is not None


def _place_norm(
    graph_module: fx.GraphModule, norm: fx.Node, modules: dict[str, nn.Module], *, with_convolution: bool
) -> None:
    """Put a fused layer in the place of a BatchNorm, the convolution before it, the sum and the ReLU behind it."""
    layer, before = cast(nn.BatchNorm2d, modules[str(norm.target)]), norm.args[0]
    last, others = norm, tuple[fx.Node, ...]()
    if (sum_ := _only_reader(norm)) and (found := _added(sum_, norm)):
        last, others = sum_, (found,)
    relu = _only_reader(last)
    with_relu = relu is not None and _is_relu(relu, modules)
    end = relu if relu is not None and with_relu else last
    if with_convolution and isinstance(before, fx.Node) and _is_fusible_convolution(before, last, graph_module):
        convolution = cast(nn.Conv2d, modules[str(before.target)])
        fused: nn.Module = KernelConvolutionNorm(convolution, layer, with_relu=with_relu)
        _replace_both(graph_module, end, fused, (before.args[0], *others), at=last)
    else:
        _replace(graph_module, end, KernelBatchNorm(layer, with_relu=with_relu), (before, *others), at=last)
    for node in (last, norm, before):
        if (
            isinstance(node, fx.Node)
            and node in graph_module.graph.nodes
            and not node.users
            and node.op != "placeholder"
        ):
            graph_module.graph.erase_node(node)


def _is_fusible_convolution(node: fx.Node, place: fx.Node, graph_module: fx.GraphModule) -> bool:
    """Return whether a convolution has one reader and may be computed as late as `place`: its input stays as it is."""
    if not _calls_with_one(node) or len(node.users) != 1:
        return False
    if not is_usual_convolution(graph_module.get_submodule(str(node.target))):
        return False
    between = node.next
    while between is not place:
        if works_in_place(between, graph_module) and between.args[0] is node.args[0]:
            return False
        between = between.next
    return True


def _replace_both(
    graph_module: fx.GraphModule, node: fx.Node, module: nn.Module, args: tuple[fx.node.Argument, ...], *, at: fx.Node
) -> None:
    """Put a KernelConvolutionNorm in the place of `node`; who reads its input later reads it from there."""
    x = cast(fx.Node, args[0])
    graph = graph_module.graph
    later = [user for user in x.users if user > at and user.op != "output"]
    in_place = any(works_in_place(user, graph_module) for user in x.users if user.op != "output")
    pair = _replace(graph_module, node, module, args, at=at)
    with graph.inserting_after(pair):
        y = graph.call_function(operator.getitem, (pair, 0))
    pair.replace_all_uses_with(y, delete_user_cb=lambda user: user is not y)
    if later and not in_place:
        with graph.inserting_after(y):
            passed = graph.call_function(operator.getitem, (pair, 1))
        for user in later:
            user.replace_input_with(x, passed)


def _replace(
    graph_module: fx.GraphModule, node: fx.Node, module: nn.Module, args: tuple[fx.node.Argument, ...], *, at: fx.Node
) -> fx.Node:
    """Call `module` before `at`, where nothing has overwritten yet what it reads, for whoever reads `node`."""
    name = f"_kernel_{node.name}"
    graph_module.add_module(name, module)
    with graph_module.graph.inserting_before(at):
        new = graph_module.graph.call_module(name, args)
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    graph_module.graph.erase_node(node)
    return new


def _only_reader(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _added(node: fx.Node, norm: fx.Node) -> fx.Node | None:
    """Return what a sum adds to `norm`; None where it is no sum, or writes into the other."""
    if node.op != "call_function" or node.target not in SUMS or node.kwargs or len(node.args) != 2:
        return None
    first, second = node.args
    if first is second or not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
        return None
    if first is norm:
        return second
    return None if node.target is operator.iadd else first


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        layer = modules.get(str(node.target))
        return type(layer) is nn.ReLU and not is_hooked(layer)
    return node.op == "call_function" and node.target in RELUS


def _is_bf16_autocast() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def _is_convolved(x: Tensor, layer: nn.Conv2d) -> bool:
    """Return whether image and weight are where, and lie as, the kernels read them."""
    weight = layer.weight
    if not _is_bf16_autocast() or weight.device.type != "cpu" or weight.dtype != torch.float32:
        return False
    if x.dtype not in (torch.bfloat16, torch.float32) or not _lies_well(x) or x.shape[1] != weight.shape[1]:
        return False
    if x.requires_grad and x.shape[1] % LANES:
        return False
    one_pixel = weight.shape[2:] == (1, 1) and weight.is_contiguous()
    return one_pixel or weight.is_contiguous(memory_format=CHANNELS_LAST)


def _is_normalized(shape: tuple[int, ...], layer: nn.BatchNorm2d) -> bool:
    """Return whether a layer normalizes by the batch, which has more than one value a channel."""
    weight = layer.weight
    if not layer.training or weight.device.type != "cpu" or weight.dtype != torch.float32:
        return False
    return len(shape) == 4 and shape[1] == len(weight) and math.prod(shape) > shape[1]


def _is_ours(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16 and _lies_well(x)


def _is_like(other: object, shape: tuple[int, ...]) -> bool:
    return isinstance(other, Tensor) and _is_ours(other) and other.shape == shape


def _lies_well(x: Tensor) -> bool:
    is_whole = x.ndim == 4 and x.numel() > 0 and x.is_contiguous(memory_format=CHANNELS_LAST)
    return x.device.type == "cpu" and is_whole


def _plain_norm(x: Tensor, layer: nn.BatchNorm2d, other: Tensor | None, with_relu: bool) -> Tensor:
    y = layer(x) if other is None else layer(x) + other
    return F.relu(y) if with_relu else cast(Tensor, y)


def _norm_of(layer: nn.BatchNorm2d) -> Norm:
    """Return what the layer holds."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.num_batches_tracked is not None
    assert layer.momentum is not None
    statistics = (layer.running_mean, layer.running_var, layer.num_batches_tracked)
    return Norm(layer.weight, layer.bias, *statistics, layer.momentum, layer.eps)
