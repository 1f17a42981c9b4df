"""Stages of a network that was traced: its graph calls leaves alone, so what other modules give is marked."""

from collections.abc import Sequence

from torch import Tensor, fx, nn

from pipeline.training.fake_quantize import FakeQuantizeActivation


class StageMark(nn.Module):
    """Stands where a stage's output is; its path names that output for training.features."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x


def mark_stages(graph_module: fx.GraphModule, stages: Sequence[str]) -> tuple[str, ...]:
    """Return names for the outputs of `stages`: layers that the graph calls keep theirs, others get a mark.

    A mark reads what its stage gives, on the grid where that is quantized, and nobody reads the mark. A stage that the
    graph does not show is left out.
    """
    called = {str(node.target) for node in graph_module.graph.nodes if node.op == "call_module"}
    names = []
    for stage in stages:
        name, node = stage, _last_within(graph_module.graph, stage)
        if stage not in called:
            if node is None:
                continue
            name = f"stage_{stage.replace('.', '_')}"
            graph_module.add_module(name, StageMark())
            value = _quantized(node, graph_module)
            with graph_module.graph.inserting_after(value):
                graph_module.graph.call_module(name, (value,))
        names.append(name)
    return tuple(names)


def _last_within(graph: fx.Graph, path: str) -> fx.Node | None:
    """Return the last call that a module makes: what it gives."""
    inside = [node for node in graph.nodes if path in node.meta.get("nn_module_stack", ())]
    return inside[-1] if inside else None


def _quantized(node: fx.Node, graph_module: fx.GraphModule) -> fx.Node:
    for user in node.users:
        if user.op == "call_module" and isinstance(
            graph_module.get_submodule(str(user.target)), FakeQuantizeActivation
        ):
            return user
    return node
