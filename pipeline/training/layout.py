"""Re-writing a network without changing what it computes: BatchNorm folded, weights laid out for fast convolution."""

import operator

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from pipeline.training.placement import OPENED, WEIGHTED, belongs, operands

UNTRACEABLE = (fx.proxy.TraceError, TypeError, RuntimeError, AssertionError, ValueError, LookupError, AttributeError)
"""What symbolic tracing raises where Python needs the value of a tensor, or the network looks at its type or shape."""
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def to_channels_last(model: nn.Module) -> nn.Module:
    """Lay the weights of convolutions out as [out, height, width, in] in memory, in place; return the model.

    Kernels of one pixel are left alone: both layouts are the same bytes, and other strides would only mislead.
    """
    for parameter in model.parameters():
        if parameter.ndim == 4 and parameter.shape[2:] != (1, 1):
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def fold_batch_norm(graph_module: fx.GraphModule) -> None:
    """Fold each BatchNorm into the convolution or linear layer before it, where nobody else reads that layer."""
    modules = dict(graph_module.named_modules())
    for node in list(graph_module.graph.nodes):
        norm = modules[node.target] if node.op == "call_module" else None
        if not isinstance(norm, BatchNorm):
            continue
        before = node.args[0]
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        layer = modules[str(before.target)]
        called_once = sum(other.target == before.target for other in graph_module.graph.nodes) == 1
        if not called_once or not isinstance(layer, WEIGHTED) or norm.running_mean is None:
            continue
        modules[str(before.target)] = _fused(layer, norm)
        _set_module(graph_module, str(before.target), modules[str(before.target)])
        node.replace_all_uses_with(before)
        graph_module.graph.erase_node(node)
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()


def open_activations(graph_module: fx.GraphModule) -> None:
    """Write SiLU as the product that it is."""
    modules = dict(graph_module.named_modules())
    for node in [node for node in graph_module.graph.nodes if belongs(node, OPENED, modules)]:
        (x,) = operands(node)
        with graph_module.graph.inserting_before(node):
            gate = graph_module.graph.call_function(torch.sigmoid, (x,))
            product = graph_module.graph.call_function(operator.mul, (x, gate))
        for new in (gate, product):
            new.meta = dict(node.meta)
        node.replace_all_uses_with(product)
        graph_module.graph.erase_node(node)
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()


def _fused(layer: nn.Module, norm: BatchNorm) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer.eval(), norm.eval())
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    return fuse_conv_bn_eval(layer.eval(), norm.eval(), isinstance(layer, nn.ConvTranspose2d))


def _set_module(root: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, module)
