"""Where activations are quantized: rules as data, by what every integer runtime fuses (architecture, decision 6).

Rule: a kind of operator belongs to one set; nothing else in the pass knows an operator by name. The counterpart, for
ONNX, is export.operators.
"""

import operator
from collections.abc import Set

import torch
from torch import fx, nn
from torch.nn import functional as F

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
WEIGHTED = (*CONVOLUTIONS, nn.Linear)
"""Modules whose weights become int8 and which compute in int8."""
WEIGHTED_FUNCTIONS: dict[object, int] = {
    **dict.fromkeys((F.conv1d, F.conv2d, torch.conv1d, torch.conv2d, F.linear), 0),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, torch.conv_transpose1d, torch.conv_transpose2d), 1),
}
"""The same as functions of an input and a weight: by the weight's axis of output channels."""
PRODUCTS = (torch.matmul, operator.matmul, "matmul", torch.bmm, "bmm", torch.mm, "mm")
"""Products of two tensors, on codes where both are quantized; a parameter of two axes on the right is a weight."""
GIVES_FLOATS = (nn.Linear, F.linear, *PRODUCTS)
"""Runtimes compute these on codes even where their output stays float; others need a grid on both sides."""
ABSORBED = (nn.ReLU, nn.ReLU6, F.relu, F.relu6, torch.relu, "relu", "relu_")
"""Fused into the operator before them: the range is taken behind them."""
CEILINGS = {nn.ReLU6: 6.0, F.relu6: 6.0}
"""The largest value behind an operator of ABSORBED."""
PAIRS = (
    *(operator.add, operator.iadd, torch.add, "add", "add_"),
    *(operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_"),
)
"""Take two tensors; with a number they stay float."""
MEANS = (torch.mean, "mean")
"""Pools where they run over the height and the width of an image; float over anything else."""
LIGHT = (
    *(*PAIRS, *MEANS, torch.cat, torch.concat),
    *(nn.AvgPool2d, nn.AdaptiveAvgPool2d, F.avg_pool2d, F.adaptive_avg_pool2d),
    *(nn.LeakyReLU, F.leaky_relu, nn.Sigmoid, F.sigmoid, torch.sigmoid, "sigmoid"),
)
"""Computed in int8, with a range of their own, where an operator with weights reads what becomes of them."""
KEEPS_GRID = (
    *(nn.MaxPool2d, F.max_pool2d, nn.AdaptiveMaxPool2d, nn.Flatten, torch.flatten, "flatten", torch.reshape, "reshape"),
    *("view", "permute", torch.permute, "transpose", torch.transpose, torch.swapaxes, torch.movedim, "t", torch.t),
    *("squeeze", "unsqueeze", torch.squeeze, torch.unsqueeze, nn.Unflatten, "unflatten", "expand", torch.narrow),
    *("contiguous", "clone", torch.clone, "chunk", torch.chunk, "split", torch.split, "unbind", torch.unbind),
    *(operator.getitem, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, F.pixel_shuffle, F.pixel_unshuffle),
    *(nn.Upsample, nn.UpsamplingNearest2d, F.interpolate),
)
"""Move codes without changing them: the output has its input's grid."""
OPENED = (nn.SiLU, F.silu)
"""Written as x * sigmoid(x), which runtimes compute on codes where both are quantized."""
RESIZES = (nn.Upsample, nn.UpsamplingNearest2d, F.interpolate)
"""Move codes in the mode `nearest` alone."""
DROPPED = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, F.dropout, F.dropout2d)
"""Do nothing at inference and leave the graph."""
SIZES = ("size", "dim", "numel", "ndimension", "item")
"""Methods that give plain numbers."""
PLAIN_ATTRIBUTES = ("shape", "ndim", "dtype", "device")
"""Attributes of a tensor that are no tensors."""
PLAIN_MODULES = ("_operator", "math", "builtins")
"""Where functions live that give plain numbers for plain numbers."""
IMAGE_AXES = ({2, 3}, {-2, -1}, {2, -1}, {-2, 3})


def belongs(node: fx.Node, rules: tuple[object, ...], modules: dict[str, nn.Module]) -> bool:
    """Return whether a node calls one of the operators in `rules` (module classes, functions, method names)."""
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], tuple(rule for rule in rules if isinstance(rule, type)))
    return node.op in ("call_function", "call_method") and node.target in rules


def is_heavy(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Return whether a node gains from int8 by itself: it multiplies tensors with each other or with weights."""
    return belongs(node, (*WEIGHTED, *WEIGHTED_FUNCTIONS, *PRODUCTS), modules)


def is_light(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Return whether a node can compute on codes on the way from one heavy operator to the next."""
    if node.target in PAIRS:
        return len(operands(node)) == 2
    return _is_image_mean(node) if node.target in MEANS else belongs(node, LIGHT, modules)


def moves(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Return whether a node only moves codes."""
    if not belongs(node, RESIZES, modules):
        return belongs(node, KEEPS_GRID, modules)
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    given = [*node.args, None, None, None, None][3]  # input, size, scale_factor, mode
    mode = getattr(module, "mode", None) or node.kwargs.get("mode") or given or "nearest"
    return str(mode).startswith("nearest")


def ceiling_of(node: fx.Node, modules: dict[str, nn.Module]) -> float | None:
    """Return the largest value that a node can give, where its operator has one."""
    return next((ceiling for rule, ceiling in CEILINGS.items() if belongs(node, (rule,), modules)), None)


def operands(node: fx.Node) -> list[fx.Node]:
    """Return the values that a node computes with or moves; never its sizes, and no weight of WEIGHTED_FUNCTIONS."""
    if not node.args:
        return node.all_input_nodes[:1]
    values = node.args[:2] if node.target in (*PAIRS, *PRODUCTS) else node.args[:1]
    flat = [item for value in values for item in (value if isinstance(value, list | tuple) else [value])]
    return [value for value in flat if isinstance(value, fx.Node)]


def gives_sequence(node: fx.Node) -> bool:
    """Return whether all that is read of a node are its items, as of the tuple that `chunk` gives."""
    items = [u.target is operator.getitem and isinstance(u.args[1], int) for u in node.users]
    return bool(items) and all(items)


def find_plain(graph: fx.Graph) -> Set[fx.Node]:
    """Return the nodes whose values are sizes and other plain values, not tensors."""
    plain: set[fx.Node] = set()
    for node in graph.nodes:
        is_attribute = node.target is getattr and node.args[1] in PLAIN_ATTRIBUTES
        is_size = node.op == "call_method" and node.target in SIZES
        from_plain = bool(node.all_input_nodes) and plain.issuperset(node.all_input_nodes)
        if is_attribute or is_size or (from_plain and getattr(node.target, "__module__", "") in PLAIN_MODULES):
            plain.add(node)
    return plain


def _is_image_mean(node: fx.Node) -> bool:
    axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    return isinstance(axes, list | tuple) and set(axes) in IMAGE_AXES
