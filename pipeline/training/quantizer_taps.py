"""What passes through the quantizers of a torch model, under the names that their nodes have in an export."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.training.fake_quantize import FakeQuantizeActivation, activation_quantizers


@dataclass(frozen=True)
class OnGrid:
    """A tensor behind a quantizer."""

    values: np.ndarray
    """Real values on the grid, float32."""
    scale: float


@torch.inference_mode()
def tap_quantizers(model: nn.Module, images: Tensor) -> dict[str, OnGrid]:
    """Infer once and return what each activation quantizer gave, in float32, in order of execution.

    The key is the name of the QuantizeLinear of an export: `{module}/QuantizeLinear`, then `_1`, `_2` for the further
    calls of a quantizer whose grid serves several tensors.
    """
    found: dict[str, OnGrid] = {}
    calls: Counter[str] = Counter()

    def keep(name: str) -> Callable[[nn.Module, tuple[object, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[object, ...], output: Tensor) -> None:
            assert isinstance(module, FakeQuantizeActivation)
            call = f"_{calls[name]}" if calls[name] else ""
            found[f"{name}/QuantizeLinear{call}"] = OnGrid(output.float().cpu().numpy(), float(module.scale))
            calls[name] += 1

        return hook

    with ExitStack() as hooks:
        for name, quantizer in activation_quantizers(model).items():
            hooks.callback(quantizer.register_forward_hook(keep(name)).remove)
        model.eval()(images)
    return found
