"""Equalises the channels between convolutions before a model is quantized; what the model computes stays the same.

A tensor has one grid, so a channel that is a hundredth of the largest gets a hundredth of the codes. Where one
convolution gives the tensor and only convolutions read it, with nothing between but operators with f(s x) = s f(x) for
s > 0, channel i can be made s_i times smaller by the weights of the first and larger by those of the others.
Rule: for weights on one grid per output channel, which makes the first convolution's scales free (in Nagel et al. 2019,
arXiv 1906.04721, equations 9 to 11, weights have one grid for all channels and s_i balances both sides).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from pipeline.export.operators import HOMOGENEOUS, constant

SHARE = 0.75
"""Exponent of the activations' disparity that moves into the weights behind, whose grids then have it (as alpha of Xiao
et al. 2023, SmoothQuant, arXiv 2211.10438, equation 4). Of 0.5 and 0.75 the latter was better on one detector (14.5 dB
against 12.3), and as good on another."""
MOST = 2.0**10
"""A channel that is almost always zero is not blown up without end."""


@dataclass(frozen=True)
class Link:
    """What stands between one convolution and those that alone read what it gives."""

    giver: ir.Node
    readers: tuple[ir.Node, ...]
    tensors: tuple[str, ...]
    """Names of what the readers read."""


def find_links(graph: ir.Graph) -> tuple[Link, ...]:
    """Return the links of a prepared graph, in order of execution."""
    return tuple(link for node in graph for link in _links_behind(node))


def equalize(links: Sequence[Link], sizes: Mapping[str, np.ndarray]) -> None:
    """Move the disparity of channels from activations to weights, in place.

    Args:
        links: from `find_links`.
        sizes: float[channels] of each of their tensors: the largest |x| of a channel.
    """
    for link in links:
        largest = np.maximum.reduce([sizes[name] for name in link.tensors]).astype(np.float64)
        scales = _choose_scales(link, largest)
        if scales is not None:
            _scale(link, scales)


def _links_behind(giver: ir.Node) -> Iterator[Link]:
    if not _is_convolution(giver):
        return
    readers: dict[ir.Node, None] = {}
    tensors = []
    waiting = [giver.outputs[0]]
    while waiting:
        value = waiting.pop()
        uses = value.uses()
        if value.is_graph_output():
            return
        for node, position in uses:
            if node.op_type in HOMOGENEOUS and node.domain in ("", "ai.onnx") and len(node.outputs) == 1:
                waiting.append(node.outputs[0])
            elif position == 0 and _is_convolution(node):
                readers[node] = None
                tensors.append(str(value.name))
            else:
                return
    constants = [value for node in (giver, *readers) for value in node.inputs[1:3] if value is not None]
    if readers and all(len(value.uses()) == 1 for value in constants):
        yield Link(giver, tuple(readers), tuple(dict.fromkeys(tensors)))


def _is_convolution(node: ir.Node) -> bool:
    if node.op_type != "Conv" or node.domain not in ("", "ai.onnx"):
        return False
    weights, bias = [*node.inputs, None][1:3]
    return constant(weights) is not None and (bias is None or constant(bias) is not None)


def _choose_scales(link: Link, largest: np.ndarray) -> np.ndarray | None:
    """Return s of every channel, with geometric mean 1; None where no channel is ever more than zero.

    A depthwise convolution has a grid of its own for each channel's weights: there the activations become all equal.
    Elsewhere what moves into the weights is balanced by what these have of it already, on their own grids.
    """
    alive = largest > 0
    if not alive.any():
        return None
    in_weights = np.maximum.reduce([_sizes_on_grid(node, len(largest)) for node in link.readers])
    is_depthwise = all(_groups(node) == len(largest) for node in link.readers)
    share = 1.0 if is_depthwise else SHARE
    scales = np.ones_like(largest)
    scales[alive] = largest[alive] ** share / np.maximum(in_weights[alive], 1 / MOST) ** (1 - share)
    scales[alive] /= np.exp(np.log(scales[alive]).mean())
    result: np.ndarray = np.clip(scales, 1 / MOST, MOST)
    return result


def _sizes_on_grid(node: ir.Node, num_channels: int) -> np.ndarray:
    """Return, of each input channel, the largest weight as a share of the largest in its output channel."""
    weights_OIk = np.abs(_weights(node).reshape(len(_weights(node)), _weights(node).shape[1], -1)).max(axis=2)
    shares_OI = weights_OIk / np.maximum(weights_OIk.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    groups = _groups(node)
    result: np.ndarray = shares_OI.reshape(groups, -1, num_channels // groups).max(axis=1).reshape(-1)
    return result


def _scale(link: Link, scales: np.ndarray) -> None:
    weights = _weights(link.giver)
    _replace(link.giver.inputs[1], weights / scales.reshape(-1, *[1] * (weights.ndim - 1)))
    bias = constant(link.giver.inputs[2]) if len(link.giver.inputs) > 2 else None
    if bias is not None:
        _replace(link.giver.inputs[2], bias / scales)
    for node in link.readers:
        weights, groups = _weights(node), _groups(node)
        of_outputs = np.repeat(scales.reshape(groups, -1), len(weights) // groups, axis=0)
        _replace(node.inputs[1], weights * of_outputs.reshape(*of_outputs.shape, *[1] * (weights.ndim - 2)))


def _weights(node: ir.Node) -> np.ndarray:
    weights = constant(node.inputs[1])
    assert weights is not None
    return weights.astype(np.float64)


def _groups(node: ir.Node) -> int:
    return node.attributes.get_int("group", 1)


def _replace(value: ir.Value | None, array: np.ndarray) -> None:
    assert value is not None
    value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
