"""From a float model to one that trains on a target's int8 grid: trace, fold BatchNorm, place fake quantization."""

import logging
from collections.abc import Set

from torch import Tensor, fx, nn

from calibration.scheme import Scheme
from pipeline.errors import RecipeError
from pipeline.models import build_model
from pipeline.models.trained import TrainedModel, load_weights, read_state
from pipeline.training.exact_grids import settle_grids
from pipeline.training.fake_quantize import (
    FakeQuantizeActivation,
    FakeQuantizeWeight,
    attribute,
    quantize_weight,
    restore_grids,
)
from pipeline.training.features import stages_of
from pipeline.training.layer_names import layer_names, nodes_in
from pipeline.training.layout import fold_batch_norm, open_activations
from pipeline.training.placement import (
    ABSORBED,
    DROPPED,
    GIVES_FLOATS,
    PRODUCTS,
    WEIGHTED,
    WEIGHTED_FUNCTIONS,
    belongs,
    ceiling_of,
    find_plain,
    gives_sequence,
    is_heavy,
    is_light,
    moves,
    operands,
)
from pipeline.training.stage_marks import mark_stages
from pipeline.training.tracing import WAYS_OUT, line_of, trace

logger = logging.getLogger(__name__)


def make_quantized(model: nn.Module, scheme: Scheme, float_layers: Set[str] = frozenset()) -> fx.GraphModule:
    """Return a copy of `model` with BatchNorm folded and fake quantization in place, not yet calibrated.

    A weight that several layers share has one grid. A layer that shares its weight and has a BatchNorm of its own
    behind it gets a weight of its own, since folding makes them differ.

    Args:
        model: any network that traces.
        scheme: the grid of the target.
        float_layers: a plan of mixed precision: what stays in float, by the names of training.layer_names.

    Raises:
        RecipeError: the model does not trace, has nothing to quantize, computes a weight in its forward, or does not
            have a layer of the plan.
    """
    graph_module = trace(model)
    graph_module.graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    open_activations(graph_module)
    kept = nodes_in(float_layers, layer_names(graph_module.graph), graph_module)
    _drop(graph_module)
    fold_batch_norm(graph_module)
    if not _quantize_weights(graph_module, scheme.weight_bits, kept):
        planned = ", or a shorter float_layers" if kept else ""
        raise RecipeError(
            f"student.model: expected at least one convolution or linear layer to quantize{planned}; got none. "
            'Deploy it with precision = "fp32"'
        )
    _place_activations(graph_module, 255 if scheme.nonnegative == "uint8" else 127, kept)
    stages = mark_stages(graph_module, stages_of(model))
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    vars(graph_module)["stages"] = stages
    return graph_module


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


def _quantize_weights(graph_module: fx.GraphModule, bits: int, kept: Set[fx.Node]) -> bool:
    """Put every weight that int8 operators read on its grid; return whether there is one."""
    modules = dict(graph_module.named_modules())
    layer_grids: dict[tuple[int, type], FakeQuantizeWeight] = {}
    quantized: set[nn.Module] = set()
    function_grids: dict[tuple[str, int], str] = {}
    for node in list(graph_module.graph.nodes):
        if node in kept:
            continue
        if belongs(node, WEIGHTED, modules):
            layer = modules[str(node.target)]
            if layer not in quantized:
                key = (id(layer.weight), type(layer))
                layer_grids[key] = quantize_weight(layer, bits, layer_grids.get(key))
                quantized.add(layer)
        elif (found := _weight_of(node)) is not None:
            _quantize_parameter(graph_module, node, found, bits, function_grids)
        elif node.op == "call_module" and _has_weights(modules[str(node.target)]):
            name = f"{node.target} ({type(modules[str(node.target)]).__name__})"
            logger.warning("student.model: %s stays in float: int8 has no form of it", name)
    return bool(quantized or function_grids)


def _weight_of(node: fx.Node) -> tuple[fx.Node, int] | None:
    """Return the weight that a function multiplies with, and its axis of output channels; None where it has none.

    Raises:
        RecipeError: forward computes the weight.
    """
    if node.op != "call_function" and node.op != "call_method":
        return None
    weight = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
    if node.target in WEIGHTED_FUNCTIONS:
        if not isinstance(weight, fx.Node) or weight.op != "get_attr":
            raise RecipeError(
                f"student.model: expected a weight that is a parameter of the network; {line_of(node)} computes it in "
                f"forward. Compute it before (torch.nn.utils.parametrize), name it in float_layers, or {WAYS_OUT}"
            )
        return weight, WEIGHTED_FUNCTIONS[node.target]
    if node.target in PRODUCTS and isinstance(weight, fx.Node) and weight.op == "get_attr":
        return (weight, 1) if _parameter(weight).ndim == 2 else None
    return None


def _quantize_parameter(
    graph_module: fx.GraphModule,
    node: fx.Node,
    found: tuple[fx.Node, int],
    bits: int,
    grids: dict[tuple[str, int], str],
) -> None:
    """Let a function read its weight on a grid; those that share the weight share it."""
    weight, axis = found
    key = (str(weight.target), axis)
    if key not in grids:
        grids[key] = f"quantize_weight_{str(weight.target).replace('.', '_')}" + f"_{axis}" * (axis > 0)
        graph_module.add_module(grids[key], FakeQuantizeWeight(_parameter(weight).detach(), axis, bits))
    with graph_module.graph.inserting_before(node):
        rounded = graph_module.graph.call_module(grids[key], (weight,))
    node.replace_input_with(weight, rounded)


def _parameter(node: fx.Node) -> Tensor:
    assert node.graph.owning_module is not None
    return attribute(node.graph.owning_module, str(node.target))


def _has_weights(module: nn.Module) -> bool:
    return not isinstance(module, FakeQuantizeActivation | FakeQuantizeWeight | nn.Embedding) and any(
        parameter.ndim > 1 for parameter in module.parameters()
    )


def _place_activations(graph_module: fx.GraphModule, nonnegative_codes: int, kept: Set[fx.Node]) -> None:
    """Put a quantizer on every tensor that an integer operator reads or writes; graph outputs stay float."""
    placement = _Placement(graph_module, kept)
    for node in list(graph_module.graph.nodes):
        inherited = placement.inherited_grid(node)
        if inherited is not None and gives_sequence(node):
            placement.grids[node] = inherited
        elif inherited is not None or placement.starts_grid(node):
            placement.insert(node, inherited, nonnegative_codes)
    graph_module.graph.lint()


class _Placement:
    """Which tensor has which grid, while quantizers are put into a graph in the order of execution."""

    def __init__(self, graph_module: fx.GraphModule, kept: Set[fx.Node]) -> None:
        self.grids: dict[fx.Node, str] = {}
        self._graph_module = graph_module
        self._modules = dict(graph_module.named_modules())
        self._plain = find_plain(graph_module.graph)
        self._kept = kept
        self._leads: dict[fx.Node, bool] = {}
        """Whether an operator with weights reads a node, itself or behind what keeps codes on the way."""
        for node in reversed(graph_module.graph.nodes):
            self._leads[node] = any(self._carries(node, user) for user in node.users)

    def inherited_grid(self, node: fx.Node) -> str | None:
        """Return the grid of what a node only moves, on to where codes are read again."""
        if not self._moves(node) or not self._leads[node]:
            return None
        return next((self.grids[value] for value in operands(node) if value in self.grids), None)

    def starts_grid(self, node: fx.Node) -> bool:
        """Return whether a node's output gets a grid of its own."""
        if node in self._plain or gives_sequence(node) or self._ends(node) or self._is_weight(node):
            return False
        is_absorbed = self._is_absorbed(node)
        if self._is_integer(node) and len(node.users) == 1 and self._is_absorbed(next(iter(node.users))):
            return False
        if (is_absorbed or self._is_integer(node)) and self._needs_codes(operands(node)[0] if is_absorbed else node):
            return True
        return any(self._reads_integers(node, user) for user in node.users)

    def insert(self, node: fx.Node, inherited: str | None, nonnegative_codes: int) -> None:
        """Round the output of `node`; what moves a tensor takes its grid, and does not count in its range again."""
        name = inherited or f"quantize_{node.name}"
        if inherited is None:
            quantizer = FakeQuantizeActivation(nonnegative_codes, ceiling_of(node, self._modules))
            self._graph_module.add_module(name, quantizer)
            self._modules[name] = quantizer
        with self._graph_module.graph.inserting_after(node):
            rounded = self._graph_module.graph.call_module(name, (node, True) if inherited else (node,))
        node.replace_all_uses_with(rounded, delete_user_cb=lambda user: user is not rounded and user.op != "output")
        self.grids[rounded] = name

    def _is_integer(self, node: fx.Node) -> bool:
        """Return whether a node computes in int8 where its inputs are quantized."""
        if node in self._plain or node in self._kept:
            return False
        return is_heavy(node, self._modules) or (is_light(node, self._modules) and self._leads[node])

    def _is_absorbed(self, node: fx.Node) -> bool:
        is_one = node not in self._kept and belongs(node, ABSORBED, self._modules)
        return is_one and any(map(self._is_integer, operands(node)))

    def _moves(self, node: fx.Node) -> bool:
        return node not in self._kept and moves(node, self._modules)

    def _needs_codes(self, node: fx.Node) -> bool:
        """Return whether runtimes compute an integer operator on codes only where its output is quantized, too."""
        return not belongs(node, GIVES_FLOATS, self._modules)

    def _is_weight(self, node: fx.Node) -> bool:
        return node.op == "call_module" and isinstance(self._modules[str(node.target)], FakeQuantizeWeight)

    def _ends(self, node: fx.Node) -> bool:
        """Return whether nobody but the graph's output reads a node, itself or behind operators that only move it."""
        return node.op == "output" or all(
            user.op == "output" or (self._moves(user) and self._ends(user)) for user in node.users
        )

    def _carries(self, node: fx.Node, user: fx.Node) -> bool:
        if node not in operands(user) or user in self._plain or user in self._kept:
            return False
        if is_heavy(user, self._modules):
            return True
        goes_on = is_light(user, self._modules) or self._moves(user) or belongs(user, ABSORBED, self._modules)
        return goes_on and self._leads[user]

    def _reads_integers(self, node: fx.Node, user: fx.Node) -> bool:
        """Return whether `user` computes with `node` in int8, itself or behind operators that only move it."""
        if node not in operands(user) or user in self._plain:
            return False
        if self._moves(user):
            return any(self._reads_integers(user, reader) for reader in user.users)
        return self._is_integer(user)


def load_any(trained: TrainedModel) -> nn.Module:
    """Return a float model, or a quantized one as it was trained, with its weights, in eval mode."""
    if trained.scheme is None:
        return trained.load()
    checkpoint = trained.checkpoint
    network = build_model(trained.model, checkpoint.image_shape[2], len(checkpoint.classes))
    quantized = make_quantized(network, trained.scheme, frozenset(trained.float_layers))
    load_weights(quantized, read_state(checkpoint.path), where=str(checkpoint.path))
    restore_grids(quantized)
    settle_grids(quantized)
    return quantized.eval()
