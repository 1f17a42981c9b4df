"""Move the scales of a calibrated model by a fraction of a percent, to where every runtime rounds to the same codes.

Rule: what the ratios must be is said in calibration.ties. A checkpoint keeps the scales that were trained; whoever
loads it to export, compare or evaluate it gets these, so that they are one model.
"""

from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from calibration.affine import CODES, dequantize, quantize
from calibration.ties import DENOMINATOR, count_steps, raise_ratios
from pipeline.training.fake_quantize import FakeQuantizeActivation, FakeQuantizeWeight, attribute
from pipeline.training.placement import ABSORBED, PAIRS, belongs, operands

ADDS = PAIRS[: PAIRS.index("add_") + 1]


@torch.no_grad()
def settle_grids(model: fx.GraphModule) -> None:
    """Move scales so that sums of codes never fall between two codes, and put biases on the grid of the sums.

    Scales of tensors that are added become multiples of 1 / 1023 of the sum's; scales of weights are raised, so that
    none is cut. Grids with a ceiling stay: wider ones would keep the runtimes from fusing the clip.

    Args:
        model: from `make_quantized`, calibrated, in the state of a loaded checkpoint.
    """
    layers = _Layers(model)
    settled = {each for each in model.modules() if isinstance(each, FakeQuantizeActivation) and each.ceiling}
    for node in model.graph.nodes:
        if node.target in ADDS:
            _settle_sum(layers.inputs(node), layers.output(node), settled)
    done: set[FakeQuantizeWeight] = set()
    for node in model.graph.nodes:
        weight, output, inputs = layers.weight(node), layers.output(node), layers.inputs(node)[:1]
        if weight is None or not inputs:
            continue
        if output is not None and weight not in done:
            _settle_weights(inputs[0], weight, output)
        done.add(weight)
        _round_bias(layers.bias(node), inputs[0].scale * weight.scale)


class _Layers:
    """The grids around each node of a quantized graph."""

    def __init__(self, model: fx.GraphModule) -> None:
        self._model = model
        self._modules = dict(model.named_modules())

    def inputs(self, node: fx.Node) -> list[FakeQuantizeActivation]:
        """Return the grids of what a node computes with, where all of that is on grids."""
        found = [self._module(value) for value in operands(node)]
        grids = [grid for grid in found if isinstance(grid, FakeQuantizeActivation)]
        return grids if len(grids) == len(found) else []

    def output(self, node: fx.Node) -> FakeQuantizeActivation | None:
        """Return the grid of what a node gives, behind what is fused into it."""
        users = list(node.users)
        if len(users) == 1 and belongs(users[0], ABSORBED, self._modules):
            return self.output(users[0])
        grids = [self._module(user) for user in users]
        return next((grid for grid in grids if isinstance(grid, FakeQuantizeActivation)), None)

    def weight(self, node: fx.Node) -> FakeQuantizeWeight | None:
        """Return the grid of a node's weights; those of a parametrized layer, or the module that a function reads."""
        module = self._module(node)
        if module is not None and parametrize.is_parametrized(module, "weight"):
            grid = cast(parametrize.ParametrizationList, cast(nn.ModuleDict, module.parametrizations)["weight"])[0]
            return grid if isinstance(grid, FakeQuantizeWeight) else None
        if node.op == "call_module":
            return None
        read = [self._module(value) for value in node.all_input_nodes]
        return next((grid for grid in read if isinstance(grid, FakeQuantizeWeight)), None)

    def bias(self, node: fx.Node) -> Tensor | None:
        """Return the bias of a layer, or of a function that reads a parameter."""
        if node.op == "call_module":
            return cast(Tensor | None, self._module(node).bias)  # type: ignore[union-attr]
        value = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
        is_parameter = isinstance(value, fx.Node) and value.op == "get_attr"
        return attribute(self._model, str(cast(fx.Node, value).target)) if is_parameter else None

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._modules[str(node.target)] if node.op == "call_module" else None


def _settle_sum(
    inputs: list[FakeQuantizeActivation], output: FakeQuantizeActivation | None, settled: set[FakeQuantizeActivation]
) -> None:
    """Make the inputs' scales multiples of the output's; where one of them is settled already, the output moves."""
    if output is None or not inputs:
        return
    kept = next((grid for grid in inputs if grid in settled), None)
    if kept is not None and output not in settled:
        ratio = float(kept.scale / output.scale)
        output.scale.copy_(kept.scale * (DENOMINATOR / count_steps(ratio)))
    settled.add(output)
    for grid in inputs:
        if grid not in settled:
            grid.scale.copy_(output.scale * (count_steps(float(grid.scale / output.scale)) / DENOMINATOR))
            settled.add(grid)


def _settle_weights(inputs: FakeQuantizeActivation, weight: FakeQuantizeWeight, output: FakeQuantizeActivation) -> None:
    ratios = (inputs.scale.double() * weight.scale.double() / output.scale.double()).cpu().numpy()
    weight.scale.mul_(torch.from_numpy(raise_ratios(ratios) / ratios).to(weight.scale))


def _round_bias(bias: Tensor | None, scale: Tensor) -> None:
    """Round a bias to the grid of the sums that it is added to, as it is in the file (export.encode)."""
    if bias is None or bias.shape != scale.shape or float((bias / scale).abs().max()) > CODES["int32"][1]:
        return
    steps = scale.cpu().numpy()
    rounded = dequantize(quantize(bias.cpu().numpy(), steps, 0, "int32"), steps, 0)
    bias.copy_(torch.from_numpy(rounded))
