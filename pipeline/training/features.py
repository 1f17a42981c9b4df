"""Features: the outputs of named layers beside the logits, returned by the network itself, so that it still compiles.

A layer is named as in `named_modules()`: `layer2.0.relu2`; `layer2.0.relu2:input` is what enters it. `stage:1`,
`stage:2`, ... and `stage:last` are the layers that a network lists in its attribute `stages`, from shallow to deep.
Rule: a network that torch.fx cannot trace is read through forward hooks instead, and is then not compiled.
"""

import random
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils.hooks import RemovableHandle

from pipeline.distillation.loss import INPUT
from pipeline.errors import RecipeError
from pipeline.training.fake_quantize import FakeQuantizeActivation
from pipeline.training.layout import UNTRACEABLE

STAGE = "stage:"
SHOWN = 12
IN_PLACE_OPERATORS = {"iadd", "isub", "imul", "itruediv", "iand", "ior"}
PLAIN = (bool, int, float, str)
TRACERS_OWN = ("_tensor_constant", "_param_constant")
"""What a trace calls the tensors that it keeps in the root: they are part of the graph."""

Features = tuple[Tensor, ...]


def resolve_layers(words: Sequence[str], network: nn.Module, *, who: str) -> tuple[str, ...]:
    """Return the layers' own names.

    Raises:
        RecipeError: no such stage or layer; lists what there is.
    """
    stages = stages_of(network)
    names = [name for name, _ in network.named_modules() if name]
    return tuple(_resolve(word, stages, names, who) for word in words)


def stages_of(network: nn.Module) -> tuple[str, ...]:
    """Return the layers that a network calls its stages, from shallow to deep.

    They are its attribute `stages`, where that is a list of its layers' names; many networks call other things so.
    """
    stages = getattr(network, "stages", ())
    if not isinstance(stages, tuple | list) or not all(isinstance(name, str) for name in stages):
        return ()
    names = {name for name, _ in network.named_modules()}
    return tuple(stages) if names.issuperset(stages) else ()


def with_features(network: nn.Module, layers: Sequence[str], *, who: str) -> nn.Module:
    """Return a module that gives (logits, features): one feature a layer, in the order of `layers`.

    It shares weights and buffers with `network`, whose mode (training or not) it takes once and for all. Of a layer
    that is called several times it gives the last call's.

    Raises:
        RecipeError: the network does not call a layer in its forward, or what it gives is no tensor.
    """
    found = _trace(network)
    if found is None:
        return _Hooked(network, layers, who)
    tracer, graph = found
    places = [tracer.places.get(layer) for layer in layers]
    if any(place is None for place in places):
        return _Hooked(network, layers, who)  # perhaps called in a way that a graph does not show
    spoils = any(works_in_place(node, network) for node in graph.nodes)
    kept = tuple(_copied_node(graph, place) if spoils else place for place in places if place is not None)
    (output,) = graph.find_nodes(op="output")
    output.args = ((output.args[0], kept),)
    return fx.GraphModule(tracer.root, graph).train(network.training)


def traced(network: nn.Module) -> fx.GraphModule | None:
    """Return the network's graph of operators, on its own modules and in their modes.

    None where a graph would not do what the network does.
    """
    found = None if isinstance(network, _Hooked) else _trace(network)  # a graph would not run its hooks
    return fx.GraphModule(found[0].root, found[1]) if found else None


@torch.no_grad()
def shapes_of(network: nn.Module, images: Tensor, *, layers: Sequence[str], who: str) -> tuple[tuple[int, ...], ...]:
    """Return each feature's shape without its batch dimension, by one pass of `images` in eval mode.

    Raises:
        RecipeError: as `with_features`, or a layer that gives no tensor of at least two dimensions.
    """
    if not layers:
        return ()
    modes = {module: module.training for module in network.modules()}
    _, features = with_features(network.eval(), layers, who=who)(images)
    for module, is_training in modes.items():
        module.training = is_training
    for layer, feature in zip(layers, features, strict=True):
        if not isinstance(feature, Tensor) or feature.ndim < 2:
            got = f"a tensor {list(feature.shape)}" if isinstance(feature, Tensor) else type(feature).__name__
            raise RecipeError(f"{who}: layer {layer!r}: expected it to give a tensor [B, C, ...]; got {got}")
    return tuple(tuple(feature.shape[1:]) for feature in features)


def _trace(network: nn.Module) -> tuple["_Tracer", fx.Graph] | None:
    """Trace; None where a graph would not do what the forward does.

    That is where Python needs values, or the forward draws or keeps something in Python, or turns gradients or autocast
    on or off: a graph would freeze or lose it.
    """
    tracer = _Tracer()
    random_states, kept = _random_states(), _Kept(network)
    try:
        graph = tracer.trace(network)
    except UNTRACEABLE:
        kept.put_back()
        return None
    if len(tracer.ways) > 1 or _random_states() != random_states or kept.has_changed():
        kept.put_back()
        return None
    return tracer, graph


def _random_states() -> tuple[object, ...]:
    of_numpy = np.random.get_state(legacy=False)["state"]
    of_torch = bytes(torch.get_rng_state().numpy())
    return random.getstate(), of_torch, bytes(of_numpy["key"]), of_numpy["pos"]


class _Kept:
    """What a network's modules keep, in attributes and buffers, before a forward."""

    def __init__(self, network: nn.Module) -> None:
        places = [place for module in network.modules() for place in (vars(module), module._buffers)]
        self._attributes: list[tuple[dict[str, Any], dict[str, Any]]] = [(place, dict(place)) for place in places]
        self._buffers = [(buffer, _version(buffer), buffer.clone()) for buffer in network.buffers()]

    def has_changed(self) -> bool:
        """Return whether anything is new; an equal number or word is not, nor are the tracer's own constants."""
        moved = any(_version(buffer) != version for buffer, version, _ in self._buffers)
        return moved or any(
            not name.startswith(TRACERS_OWN) if name not in before else not _is_same(value, before[name])
            for now, before in self._attributes
            for name, value in now.items()
        )

    @torch.no_grad()
    def put_back(self) -> None:
        """Undo what the forward has done."""
        for now, before in self._attributes:
            for name in now.keys() - before.keys():
                del now[name]
            now.update(before)
        for buffer, version, value in self._buffers:
            if _version(buffer) != version:
                buffer.copy_(value)


def _version(buffer: Tensor) -> int | None:
    """Return a number that grows as a tensor is written to; None where torch does not count."""
    return None if buffer.is_inference() else buffer._version


def _is_same(value: object, before: object) -> bool:
    return value is before or (isinstance(before, PLAIN) and type(value) is type(before) and value == before)


def _copied_node(graph: fx.Graph, place: fx.Node) -> fx.Node:
    """Return a copy taken at once: an operation after it works in place, perhaps on the same memory by another name."""
    with graph.inserting_after(place):
        return graph.call_method("clone", (place,))


def works_in_place(node: fx.Node, network: nn.Module) -> bool:
    """Return whether an operation of a traced network writes into what it reads."""
    if node.op == "call_module":
        return bool(getattr(network.get_submodule(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    is_named_so = name in IN_PLACE_OPERATORS or (name.endswith("_") and not name.endswith("__"))
    return is_named_so or any(value is True for value in (*node.args[1:], node.kwargs.get("inplace")))


class _Tracer(fx.Tracer):
    """Notes which node each module's call gives and takes, containers included."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, fx.Node] = {}
        self.ways: set[tuple[bool, bool]] = set()
        """Whether there were gradients and autocast, at each operator."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Leave whole what changes its ways from epoch to epoch."""
        return isinstance(m, FakeQuantizeActivation) or super().is_leaf_module(m, module_qualified_name)

    def create_node(self, *args: Any, **named: Any) -> fx.Node:
        """Note in what way an operator would compute."""
        self.ways.add((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        return super().create_node(*args, **named)

    def call_module(self, m: nn.Module, forward: object, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        name = self.path_of_module(m)
        if args and isinstance(args[0], fx.Proxy):
            self.places[name + INPUT] = args[0].node
        result = super().call_module(m, forward, args, kwargs)  # type: ignore[arg-type]
        if isinstance(result, fx.Proxy):
            self.places[name] = result.node
        return result


class _Hooked(nn.Module):
    """Reads features through forward hooks: works on any network, but not under torch.compile."""

    def __init__(self, network: nn.Module, layers: Sequence[str], who: str) -> None:
        super().__init__()
        self.network = network
        self._layers = tuple(layers)
        self._who = who

    def forward(self, images: Tensor) -> tuple[Tensor, Features]:
        seen: dict[str, Tensor] = {}
        modules = dict(self.network.named_modules())
        handles = [_watch(modules[layer.removesuffix(INPUT)], layer, seen) for layer in self._layers]
        try:
            logits = self.network(images)
        finally:
            for handle in handles:
                handle.remove()
        if missing := [layer for layer in self._layers if layer not in seen]:
            raise _never_called(missing[0], [name for name in modules if name], self._who)
        return logits, tuple(seen[layer] for layer in self._layers)


def _watch(module: nn.Module, layer: str, seen: dict[str, Tensor]) -> RemovableHandle:
    """Keep a copy of what enters or leaves `module` in `seen`: what comes after it may work in place."""
    if layer.endswith(INPUT):
        return module.register_forward_pre_hook(
            lambda _, args, named: seen.update({layer: _copied([*args, *named.values()][0])}), with_kwargs=True
        )
    return module.register_forward_hook(lambda _, args, result: seen.update({layer: _copied(result)}))


def _copied(value: object) -> Tensor:
    return value.clone() if isinstance(value, Tensor) else cast(Tensor, value)


def _resolve(word: str, stages: tuple[str, ...], names: list[str], who: str) -> str:
    plain, tail = (word.removesuffix(INPUT), INPUT) if word.endswith(INPUT) else (word, "")
    if plain.startswith(STAGE):
        return _stage(plain.removeprefix(STAGE), stages, names, who) + tail
    if plain not in names:
        raise RecipeError(f"{who}: expected the name of a layer; got {word!r}{_candidates(plain, names)}")
    return word


def _stage(number: str, stages: tuple[str, ...], names: list[str], who: str) -> str:
    if not stages:
        raise RecipeError(
            f"{who}: the network lists no stages, so {STAGE}{number} means nothing: name its layers in the loss "
            f"(student_layers, teacher_layers), or give it an attribute stages{_candidates('', names)}"
        )
    if number == "last":
        return stages[-1]
    if not number.isdigit() or not 1 <= int(number) <= len(stages):
        raise RecipeError(
            f"{who}: expected {STAGE}1 to {STAGE}{len(stages)}, or {STAGE}last; got {STAGE}{number}. "
            f"Its stages are {', '.join(stages)}"
        )
    return stages[int(number) - 1]


def _candidates(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, n=3)
    meant = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{meant}; its layers are {', '.join(names[:SHOWN])}{more}"


def _never_called(layer: str, names: list[str], who: str) -> RecipeError:
    return RecipeError(
        f"{who}: layer {layer!r} is there, but the network's forward never calls it{_candidates(layer, names)}"
    )
