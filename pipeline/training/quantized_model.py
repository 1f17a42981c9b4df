"""From a float model to one that trains on a target's int8 grid: trace, fold BatchNorm, place fake quantization."""

import copy
from pathlib import Path

import torch
from torch import fx, nn

from calibration.scheme import Scheme
from pipeline.errors import RecipeError
from pipeline.models import build_model
from pipeline.models.trained import TrainedModel, load_weights, read_state
from pipeline.training.fake_quantize import FakeQuantizeActivation, quantize_weight, restore_grids
from pipeline.training.features import stages_of
from pipeline.training.layout import UNTRACEABLE, fold_batch_norm
from pipeline.training.placement import (
    ABSORBED,
    DROPPED,
    KEEPS_GRID,
    WEIGHTED,
    belongs,
    find_plain,
    gives_sequence,
    is_integer,
    operands,
)

TORCH_FOLDER = str(Path(torch.__file__).parent)


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
    vars(graph_module)["stages"] = stages_of(model)
    return graph_module


def _traced(model: nn.Module) -> fx.GraphModule:
    """Trace a copy: folding and rounding must not change the float model."""
    try:
        return fx.symbolic_trace(copy.deepcopy(model).eval())
    except UNTRACEABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RecipeError(
            f"student.model: expected a forward that can be traced; {_line_in_model(error)}: {reason}. Take what "
            "depends on the values of tensors out of forward (a plain Python flag, torch.where), or deploy with "
            'precision = "fp32"'
        ) from error


def _line_in_model(error: BaseException) -> str:
    """Return file and line of the last frame that is not torch's own."""
    place = "in forward"
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file != __file__ and not file.startswith(TORCH_FOLDER):
            place = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _drop(graph_module: fx.GraphModule) -> None:
    modules = dict(graph_module.named_modules())
    for node in list(graph_module.graph.nodes):
        if not belongs(node, DROPPED, modules):
            continue
        is_on = node.op == "call_function" and node.kwargs.get("training", [*node.args, True, True][2]) is not False
        if not is_on:
            node.replace_all_uses_with(operands(node)[0])
            graph_module.graph.erase_node(node)
    graph_module.recompile()


def _weighted_layers(graph_module: fx.GraphModule) -> list[nn.Module]:
    modules = dict(graph_module.named_modules())
    called = [modules[str(n.target)] for n in graph_module.graph.nodes if belongs(n, WEIGHTED, modules)]
    return list(dict.fromkeys(called))


def _place_activations(graph_module: fx.GraphModule, nonnegative_codes: int) -> None:
    """Put a quantizer on every tensor that an integer operator reads or writes; graph outputs stay float."""
    placement = _Placement(graph_module)
    for node in list(graph_module.graph.nodes):
        inherited = placement.inherited_grid(node)
        if inherited is not None and gives_sequence(node):
            placement.grids[node] = inherited
        elif inherited is not None or placement.starts_grid(node):
            placement.insert(node, inherited, nonnegative_codes)
    graph_module.graph.lint()


class _Placement:
    """Which tensor has which grid, while quantizers are put into a graph in the order of execution."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.grids: dict[fx.Node, str] = {}
        self._graph_module = graph_module
        self._modules = dict(graph_module.named_modules())
        self._plain = find_plain(graph_module.graph)

    def inherited_grid(self, node: fx.Node) -> str | None:
        """Return the grid of what a node only moves."""
        if not belongs(node, KEEPS_GRID, self._modules) or self._ends(node):
            return None
        return next((self.grids[value] for value in operands(node) if value in self.grids), None)

    def starts_grid(self, node: fx.Node) -> bool:
        """Return whether a node's output gets a grid of its own."""
        if node in self._plain or gives_sequence(node) or self._ends(node):
            return False
        if self._is_integer(node):
            return not (len(node.users) == 1 and self._is_absorbed(next(iter(node.users))))
        return self._is_absorbed(node) or any(self._reads_integers(node, user) for user in node.users)

    def insert(self, node: fx.Node, inherited: str | None, nonnegative_codes: int) -> None:
        """Round the output of `node`; what moves a tensor takes its grid, and does not count in its range again."""
        name = inherited or f"quantize_{node.name}"
        if inherited is None:
            self._graph_module.add_module(name, FakeQuantizeActivation(nonnegative_codes))
            self._modules[name] = self._graph_module.get_submodule(name)
        with self._graph_module.graph.inserting_after(node):
            rounded = self._graph_module.graph.call_module(name, (node, True) if inherited else (node,))
        node.replace_all_uses_with(rounded, delete_user_cb=lambda user: user is not rounded and user.op != "output")
        self.grids[rounded] = name

    def _is_integer(self, node: fx.Node) -> bool:
        return is_integer(node, self._plain, self._modules)

    def _is_absorbed(self, node: fx.Node) -> bool:
        return belongs(node, ABSORBED, self._modules) and any(map(self._is_integer, operands(node)))

    def _ends(self, node: fx.Node) -> bool:
        """Return whether nobody but the graph's output reads a node, itself or behind operators that only move it."""
        return node.op == "output" or all(
            user.op == "output" or (belongs(user, KEEPS_GRID, self._modules) and self._ends(user))
            for user in node.users
        )

    def _reads_integers(self, node: fx.Node, user: fx.Node) -> bool:
        """Return whether `user` computes with `node` in int8, itself or behind operators that only move it."""
        if node not in operands(user) or user in self._plain:
            return False
        if belongs(user, KEEPS_GRID, self._modules):
            return any(self._reads_integers(user, reader) for reader in user.users)
        return self._is_integer(user)


def load_any(trained: TrainedModel) -> nn.Module:
    """Return a float model, or a quantized one as it was trained, with its weights, in eval mode."""
    if trained.scheme is None:
        return trained.load()
    checkpoint = trained.checkpoint
    network = build_model(trained.model, checkpoint.image_shape[2], len(checkpoint.classes))
    quantized = make_quantized(network, trained.scheme)
    load_weights(quantized, read_state(checkpoint.path), where=str(checkpoint.path))
    restore_grids(quantized)
    return quantized.eval()
