"""Where activations are quantized: rules as data, by what every integer runtime fuses (architecture, decision 6).

Rule: a kind of operator belongs to one set; nothing else in the pass knows an operator by name.
"""

import operator

import torch
from torch import fx, nn
from torch.nn import functional as F

WEIGHTED = (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)
"""Modules whose weights become int8 and which compute in int8."""
ABSORBED = (nn.ReLU, nn.ReLU6, F.relu, F.relu6, torch.relu, "relu", "relu_")
"""Fused into the operator before them: the range is taken behind them."""
COMPUTED = (
    *(operator.add, operator.iadd, torch.add, "add", "add_", torch.cat, torch.concat),
    *(nn.AvgPool2d, nn.AdaptiveAvgPool2d, F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, "mean"),
    *(nn.LeakyReLU, F.leaky_relu),
)
"""Computed in int8 where inputs and outputs are quantized, with ranges of their own."""
KEEPS_GRID = (
    *(nn.MaxPool2d, F.max_pool2d, nn.Flatten, torch.flatten, "flatten", torch.reshape, "reshape", "view"),
    *("permute", torch.permute, "transpose", torch.transpose, "squeeze", "unsqueeze", torch.squeeze, torch.unsqueeze),
    *("contiguous", "chunk", torch.chunk, operator.getitem, nn.PixelShuffle, nn.ChannelShuffle),
)
"""Move codes without changing them: the output has its input's grid."""
DROPPED = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
"""Do nothing at inference and leave the graph."""


def belongs(node: fx.Node, rules: tuple[object, ...], modules: dict[str, nn.Module]) -> bool:
    """Return whether a node calls one of the operators in `rules` (module classes, functions, method names)."""
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], tuple(rule for rule in rules if isinstance(rule, type)))
    return node.op in ("call_function", "call_method") and node.target in rules
