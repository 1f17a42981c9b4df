"""A teacher whose convolutions compute on int8 codes, on a CPU: about twice as fast as in bfloat16.

Ranges come from images, weights have a scale for each output channel (Nagel et al. 2021, arXiv 2106.08295, section 2).
Codes go from one convolution to the next wherever nobody else reads them; what cannot be int8 (the first layer, the
last, others' shapes) stays in bfloat16. Rule: only what a ReLU gave is quantized, so that codes start at zero.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, fx, nn

from calibration.affine import quantize, scale_of_channels, scale_of_range
from calibration.ranges import MeanSquaredError, Observer
from pipeline.errors import RecipeError
from pipeline.training.fused_convolution import FusedConvolution, is_square
from pipeline.training.kernels import int8_operators
from pipeline.training.kernels.library import find_library
from pipeline.training.kernels.operators import CHANNELS_LAST, LANES
from pipeline.training.views import ViewedImages

TeacherPrecision = Literal["bf16", "int8"]
"""What a teacher computes in."""
CODES = 255
"""Codes above zero."""
NUM_IMAGES, BATCH = 256, 64
"""What ranges are taken from."""
KEEPS_VALUES = (nn.Identity, nn.Dropout)
KEEPS_SIGNS = (*KEEPS_VALUES, nn.MaxPool2d)


class Int8Convolution(nn.Module):
    """relu(convolution(x) + other); gives codes with the scale `gives`, or bfloat16 where that is None.

    Args:
        convolution: in float32, BatchNorm folded.
        takes: scale of the codes of x; values are quantized to them.
        gives: scale of the codes that it gives.
        adds: scale of the codes of `other`, where it is codes.
    """

    def __init__(self, convolution: nn.Conv2d, takes: float, gives: float | None, adds: float | None) -> None:
        super().__init__()
        weight = convolution.weight.detach().float().numpy()
        scales = scale_of_channels(weight, axis=0)
        codes = quantize(weight, scales[:, None, None, None], 0, "int8")
        unit = gives or 1.0
        bias = torch.zeros(len(weight)) if convolution.bias is None else convolution.bias.detach().float()
        # plain attributes, not buffers: a network that goes to bfloat16 leaves them as they are
        self._packed = int8_operators.pack_codes(torch.from_numpy(codes))
        self._scale = torch.from_numpy((scales * (takes / unit)).astype(np.float32))
        self._bias = (bias / unit).contiguous()
        self._side, self._stride = convolution.kernel_size[0], convolution.stride[0]
        self._takes, self._adds, self._unit = takes, adds, unit
        self._dtype = torch.bfloat16 if gives is None else torch.uint8

    def forward(self, x: Tensor, other: Tensor | None = None, may_overwrite: bool = False) -> Tensor:
        """Return the sum behind its ReLU, channels_last: codes uint8 or values bfloat16[N, K, H', W']."""
        if x.device.type != "cpu":
            raise RecipeError(f'distillation.teacher_precision: expected "bf16" on {x.device.type}; got "int8"')
        is_code = other is not None and other.dtype == torch.uint8
        added = other if other is None or is_code else _laid_out(other)
        return int8_operators.convolution(
            x if x.dtype == torch.uint8 else int8_operators.quantize(_laid_out(x), self._takes),
            self._packed,
            self._scale,
            self._bias,
            side=self._side,
            stride=self._stride,
            dtype=self._dtype,
            other=added,
            other_scale=(self._adds or 1.0 if is_code else 1.0) / self._unit,
        )


def calibration_images(images: ViewedImages) -> Iterator[Tensor]:
    """Give NUM_IMAGES plain images, evenly spread over all: float32[B, C, H, W] on the CPU."""
    for index in torch.linspace(0, len(images) - 1, min(NUM_IMAGES, len(images))).long().split(BATCH):  # type: ignore[no-untyped-call]
        yield images.batch(index.to(images.device)).cpu()


def has_int8() -> bool:
    """Return whether this machine has kernels for int8."""
    library = find_library()
    return library is not None and library.int8


def require_int8() -> None:
    """Raise RecipeError where this machine has no kernels for int8."""
    if not has_int8():
        raise RecipeError(
            'distillation.teacher_precision: expected "bf16" on this machine, since "int8" needs a processor with '
            'AVX-512 VNNI and BF16, Linux and g++; got "int8". Leave it out'
        )


@torch.no_grad()
def quantize_convolutions(network: fx.GraphModule, images: Iterator[Tensor]) -> int:
    """Put int8 convolutions into a network of fused float32 ones, in place; return how many there are now.

    Args:
        network: in eval mode, BatchNorm folded, ReLU and sums fused.
        images: batches of float32[B, C, H, W], from which ranges are taken.
    """
    modules = dict(network.named_modules())
    chosen = [node for node in network.graph.nodes if _is_suitable(node, network.graph, modules)]
    inputs = {_input_of(node, modules) for node in chosen}
    scales = _observe(network, inputs | {node for node in chosen if _feeds_only(node, chosen, modules)}, images)
    for node in chosen:
        layer = modules[str(node.target)]
        assert isinstance(layer, FusedConvolution)
        other = _other_of(node, modules)
        int8 = Int8Convolution(
            layer.convolution,
            scales[_input_of(node, modules)],
            scales[node] if _feeds_only(node, chosen, modules) else None,
            scales[other] if other is not None and other in chosen and _feeds_only(other, chosen, modules) else None,
        )
        network.set_submodule(str(node.target), int8)
    network.recompile()
    return len(chosen)


def _is_suitable(node: fx.Node, graph: fx.Graph, modules: Mapping[str, nn.Module]) -> bool:
    layer = modules.get(str(node.target)) if node.op == "call_module" else None
    if not isinstance(layer, FusedConvolution) or sum(other.target == node.target for other in graph.nodes) > 1:
        return False
    convolution = layer.convolution
    if not is_square(convolution) or convolution.in_channels % LANES or convolution.out_channels % LANES:
        return False
    source = _behind(node.args[0], KEEPS_SIGNS, modules)
    return source is not None and isinstance(modules.get(str(source.target)), FusedConvolution)


def _behind(node: object, passed: tuple[type[nn.Module], ...], modules: Mapping[str, nn.Module]) -> fx.Node | None:
    """Return where a value comes from, past layers of these kinds."""
    while isinstance(node, fx.Node) and node.op == "call_module" and isinstance(modules[str(node.target)], passed):
        node = node.args[0]
    return node if isinstance(node, fx.Node) else None


def _input_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> fx.Node:
    found = _behind(node.args[0], KEEPS_VALUES, modules)
    assert found is not None
    return found


def _other_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> fx.Node | None:
    return _behind(node.args[1], KEEPS_VALUES, modules) if len(node.args) > 1 else None


def _feeds_only(node: fx.Node, chosen: list[fx.Node], modules: Mapping[str, nn.Module]) -> bool:
    """Return whether all that read a node are of `chosen`."""
    for user in node.users:
        passes = user.op == "call_module" and isinstance(modules[str(user.target)], KEEPS_VALUES)
        if user not in chosen and not (passes and _feeds_only(user, chosen, modules)):
            return False
    return True


def _observe(network: fx.GraphModule, nodes: set[fx.Node], images: Iterator[Tensor]) -> dict[fx.Node, float]:
    """Return the scale of each node's codes: the cut with the least squared error of what these images give."""
    observers: dict[str, Observer] = {node.name: MeanSquaredError().start(CODES) for node in nodes}
    copied = copy.deepcopy(network)  # layers that have run keep weights in an order of oneDNN's, which nothing copies

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result = super().run_node(n)
            if n.name in observers and isinstance(result, Tensor):
                observers[n.name].observe(result.float().numpy())
            return result

    for batch in images:
        Watch(copied).run(batch)
    return {node: scale_of_range(0.0, observers[node.name].range()[1], nonnegative=True) for node in nodes}


def _laid_out(values: Tensor) -> Tensor:
    return values.to(torch.bfloat16).contiguous(memory_format=CHANNELS_LAST)
