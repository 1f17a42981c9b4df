"""Where activations are quantized: rules as data, by what every integer runtime fuses (architecture, decision 6).

Rule: a kind of operator belongs to one set; nothing else in the pass knows an operator by name.
"""

import operator
from collections.abc import Set

import torch
from torch import fx, nn
from torch.nn import functional as F

WEIGHTED = (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)
"""Modules whose weights become int8 and which compute in int8."""
ABSORBED = (nn.ReLU, nn.ReLU6, F.relu, F.relu6, torch.relu, "relu", "relu_")
"""Fused into the operator before them: the range is taken behind them."""
ADDED = (operator.add, operator.iadd, torch.add, "add", "add_")
"""Take two tensors; with a number they stay float."""
COMPUTED = (
    *(*ADDED, torch.cat, torch.concat),
    *(nn.AvgPool2d, nn.AdaptiveAvgPool2d, F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, "mean"),
    *(nn.LeakyReLU, F.leaky_relu),
)
"""Computed in int8 where inputs and outputs are quantized, with ranges of their own."""
KEEPS_GRID = (
    *(nn.MaxPool2d, F.max_pool2d, nn.Flatten, torch.flatten, "flatten", torch.reshape, "reshape", "view"),
    *("permute", torch.permute, "transpose", torch.transpose, "squeeze", "unsqueeze", torch.squeeze, torch.unsqueeze),
    *("contiguous", "chunk", torch.chunk, "split", torch.split, operator.getitem, nn.PixelShuffle, nn.ChannelShuffle),
)
"""Move codes without changing them: the output has its input's grid."""
DROPPED = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, F.dropout, F.dropout2d)
"""Do nothing at inference and leave the graph."""
SIZES = ("size", "dim", "numel", "ndimension", "item")
"""Methods that give plain numbers."""
PLAIN_ATTRIBUTES = ("shape", "ndim", "dtype", "device")
"""Attributes of a tensor that are no tensors."""
PLAIN_MODULES = ("_operator", "math", "builtins")
"""Where functions live that give plain numbers for plain numbers."""


def belongs(node: fx.Node, rules: tuple[object, ...], modules: dict[str, nn.Module]) -> bool:
    """Return whether a node calls one of the operators in `rules` (module classes, functions, method names)."""
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], tuple(rule for rule in rules if isinstance(rule, type)))
    return node.op in ("call_function", "call_method") and node.target in rules


def operands(node: fx.Node) -> list[fx.Node]:
    """Return the values that a node of WEIGHTED, ABSORBED, COMPUTED or KEEPS_GRID computes with; never its sizes."""
    if not node.args:
        return node.all_input_nodes[:1]
    values = node.args[:2] if node.target in ADDED else node.args[:1]
    flat = [item for value in values for item in (value if isinstance(value, list | tuple) else [value])]
    return [value for value in flat if isinstance(value, fx.Node)]


def is_integer(node: fx.Node, plain: Set[fx.Node], modules: dict[str, nn.Module]) -> bool:
    """Return whether a node computes in int8 where its inputs are quantized."""
    if node in plain or not belongs(node, (*WEIGHTED, *COMPUTED), modules):
        return False
    return node.target not in ADDED or len(operands(node)) == 2


def gives_sequence(node: fx.Node) -> bool:
    """Return whether all that is read of a node are its items, as of the tuple that `chunk` gives."""
    items = [u.target is operator.getitem and isinstance(u.args[1], int) for u in node.users]
    return bool(items) and all(items)


def find_plain(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes whose values are sizes and other plain values, not tensors."""
    plain: set[fx.Node] = set()
    for node in graph.nodes:
        is_attribute = node.target is getattr and node.args[1] in PLAIN_ATTRIBUTES
        is_size = node.op == "call_method" and node.target in SIZES
        from_plain = bool(node.all_input_nodes) and plain.issuperset(node.all_input_nodes)
        if is_attribute or is_size or (from_plain and getattr(node.target, "__module__", "") in PLAIN_MODULES):
            plain.add(node)
    return plain
