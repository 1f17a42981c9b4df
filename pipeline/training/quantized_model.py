"""From a float model to one that trains on a target's int8 grid: trace, fold BatchNorm, place fake quantization."""

import copy

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from calibration.scheme import Scheme
from pipeline.errors import RecipeError
from pipeline.models import build_model
from pipeline.models.trained import TrainedModel, load_weights, read_state
from pipeline.training.fake_quantize import FakeQuantizeActivation, activation_quantizers, quantize_weight
from pipeline.training.placement import ABSORBED, COMPUTED, DROPPED, KEEPS_GRID, WEIGHTED, belongs

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def make_quantized(model: nn.Module, scheme: Scheme) -> fx.GraphModule:
    """Return a copy of `model` with BatchNorm folded and fake quantization in place, not yet calibrated.

    Raises:
        RecipeError: the model does not trace, or has nothing to quantize.
    """
    graph_module = _traced(model)
    _drop(graph_module)
    fold_batch_norm(graph_module)
    weighted = _weighted_layers(graph_module)
    if not weighted:
        raise RecipeError(
            "student.model: expected at least one convolution or linear layer to quantize; got none. "
            'Deploy it with precision = "fp32"'
        )
    for layer in weighted:
        quantize_weight(layer, scheme.weight_bits)
    _place_activations(graph_module, 255 if scheme.nonnegative == "uint8" else 127)
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    return graph_module


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
        if not called_once or not isinstance(layer, WEIGHTED):
            continue
        _set_module(graph_module, str(before.target), _fused(layer, norm))
        node.replace_all_uses_with(before)
        graph_module.graph.erase_node(node)
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()


def _traced(model: nn.Module) -> fx.GraphModule:
    """Trace a copy: folding and rounding must not change the float model."""
    try:
        return fx.symbolic_trace(copy.deepcopy(model).eval())
    except (fx.proxy.TraceError, TypeError) as error:
        raise RecipeError(
            f"student.model: expected a forward that can be traced; {_line_in_model(error)}: "
            f"{str(error).splitlines()[0]}. Take what depends on the values of tensors out of forward (a plain Python "
            'flag, torch.where), or deploy with precision = "fp32"'
        ) from error


def _line_in_model(error: BaseException) -> str:
    """Return file and line of the last frame that is not torch's own."""
    place = "in forward"
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "/torch/" not in file and not file.endswith("quantized_model.py"):
            place = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _drop(graph_module: fx.GraphModule) -> None:
    modules = dict(graph_module.named_modules())
    for node in list(graph_module.graph.nodes):
        if belongs(node, DROPPED, modules):
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)
    graph_module.recompile()


def _fused(layer: nn.Module, norm: BatchNorm) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer.eval(), norm.eval())
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    return fuse_conv_bn_eval(layer.eval(), norm.eval(), isinstance(layer, nn.ConvTranspose2d))


def _set_module(root: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, module)


def _weighted_layers(graph_module: fx.GraphModule) -> list[nn.Module]:
    modules = dict(graph_module.named_modules())
    called = [modules[str(n.target)] for n in graph_module.graph.nodes if belongs(n, WEIGHTED, modules)]
    return list(dict.fromkeys(called))


def _place_activations(graph_module: fx.GraphModule, nonnegative_codes: int) -> None:
    """Put a quantizer on every tensor that an integer operator reads or writes; graph outputs stay float."""
    modules = dict(graph_module.named_modules())
    graph = graph_module.graph
    integer = (*WEIGHTED, *COMPUTED)
    quantized: dict[fx.Node, str] = {}
    for node in list(graph.nodes):
        if belongs(node, KEEPS_GRID, modules):
            source = node.args[0]
            name = quantized.get(source) if isinstance(source, fx.Node) else None
        elif belongs(node, ABSORBED, modules) and belongs(node.args[0], integer, modules):
            name = _new_name(node)
        elif belongs(node, integer, modules):
            name = None if _only_reader_absorbs(node, modules) else _new_name(node)
        else:
            name = _new_name(node) if any(_reads_integers(u, integer, modules) for u in node.users) else None
        if name is None or node.op == "output" or all(user.op == "output" for user in node.users):
            continue
        if name not in modules:
            graph_module.add_module(name, FakeQuantizeActivation(nonnegative_codes))
            modules[name] = graph_module.get_submodule(name)
        with graph.inserting_after(node):
            rounded = graph.call_module(name, (node,))
        node.replace_all_uses_with(rounded, delete_user_cb=lambda user, rounded=rounded: user is not rounded)
        quantized[rounded] = name
    graph.lint()


def _only_reader_absorbs(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    return len(node.users) == 1 and belongs(next(iter(node.users)), ABSORBED, modules)


def _reads_integers(node: fx.Node, integer: tuple[object, ...], modules: dict[str, nn.Module]) -> bool:
    """Return whether a reader computes in int8, itself or behind operators that only move its input."""
    if belongs(node, KEEPS_GRID, modules):
        return any(_reads_integers(user, integer, modules) for user in node.users)
    return belongs(node, integer, modules)


def _new_name(node: fx.Node) -> str:
    return f"quantize_{node.name}"


def load_any(trained: TrainedModel, scheme: Scheme | None) -> nn.Module:
    """Return a float model (no scheme), or a quantized one as it was trained, with its weights, in eval mode."""
    if scheme is None:
        return trained.load()
    checkpoint = trained.checkpoint
    network = build_model(trained.model, checkpoint.image_shape[2], len(checkpoint.classes))
    quantized = make_quantized(network, scheme)
    load_weights(quantized, read_state(checkpoint.path), where=str(checkpoint.path))
    for quantizer in activation_quantizers(quantized).values():
        quantizer.restore()
    return quantized.eval()
