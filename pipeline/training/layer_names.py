"""What layers are called: as in our ONNX files, so that one plan of mixed precision serves both (export.names).

A module's call is `{module path}/{OpType}`, a function's `{path of the module around it}/{OpType}`, at the root
`/{OpType}`; repeats in one module get `_1`, `_2` in the order of execution.
"""

import operator
from collections import Counter
from collections.abc import Collection, Iterable
from difflib import get_close_matches

import torch
from torch import fx, nn
from torch.nn import functional as F

from pipeline.errors import RecipeError

SHOWN = 12
OPERATORS: dict[object, str] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), "Add"),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_"), "Mul"),
    **dict.fromkeys((torch.matmul, operator.matmul, "matmul", torch.bmm, "bmm", torch.mm, "mm"), "MatMul"),
    **dict.fromkeys((torch.cat, torch.concat), "Concat"),
    **dict.fromkeys((torch.mean, "mean", F.adaptive_avg_pool2d), "GlobalAveragePool"),
    **dict.fromkeys((torch.sigmoid, F.sigmoid, "sigmoid"), "Sigmoid"),
    **dict.fromkeys((F.relu, torch.relu, "relu", "relu_"), "Relu"),
    **dict.fromkeys((F.conv1d, F.conv2d, torch.conv1d, torch.conv2d), "Conv"),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d), "ConvTranspose"),
    **dict.fromkeys((torch.softmax, F.softmax, "softmax"), "Softmax"),
    F.linear: "Gemm",
    F.relu6: "Clip",
    F.avg_pool2d: "AveragePool",
    F.max_pool2d: "MaxPool",
    F.leaky_relu: "LeakyRelu",
    F.hardswish: "HardSwish",
    F.hardsigmoid: "HardSigmoid",
    F.gelu: "Gelu",
    F.interpolate: "Resize",
}
"""ONNX operator of what a network may call as a function."""


def layer_names(graph: fx.Graph) -> dict[fx.Node, str]:
    """Return the name of each call: a module's path, or `{path}/{OpType}` of a function."""
    names: dict[fx.Node, str] = {}
    seen: Counter[str] = Counter()
    for node in graph.nodes:
        if node.op == "call_module":
            names[node] = str(node.target)
        elif node.target in OPERATORS:
            stem = f"{next(reversed(node.meta.get('nn_module_stack') or ['']))}/{OPERATORS[node.target]}"
            names[node] = f"{stem}_{seen[stem]}" if seen[stem] else stem
            seen[stem] += 1
    return names


def nodes_in(plan: Collection[str], names: dict[fx.Node, str], network: nn.Module) -> set[fx.Node]:
    """Return the calls that a plan names: by their names, or by a prefix that ends before "." or "/".

    Raises:
        RecipeError: a name means nothing in this network; lists those that come near.
    """
    paths = {path for path, _ in network.named_modules()}
    for layer in sorted(plan):
        if layer in paths - {""} or any(_covers(layer, name) for name in names.values()):
            continue
        raise _unknown(layer, names.values())
    return {node for node, name in names.items() if any(_covers(layer, name) for layer in plan)}


def _covers(layer: str, name: str) -> bool:
    """Return whether a plan's word covers a call: `conv1/Conv` is the module conv1, `blocks.3` all that is in it."""
    return name == layer or name.startswith((f"{layer}.", f"{layer}/")) or ("/" not in name and _is_of(layer, name))


def _is_of(layer: str, path: str) -> bool:
    scope, slash, _ = layer.rpartition("/")
    return bool(slash) and scope == path


def _unknown(layer: str, names: Iterable[str]) -> RecipeError:
    known = list(dict.fromkeys(names))
    close = get_close_matches(layer, known, n=3)
    meant = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
    more = f", and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return RecipeError(
        f"float_layers: expected names of layers, or of modules that hold them; got {layer!r}{meant}; "
        f"its layers are {', '.join(known[:SHOWN])}{more}"
    )
