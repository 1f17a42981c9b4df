"""The state of an interrupted training: one safetensors file, replaced whole after every epoch. No pickle."""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline.durable import write_durably
from pipeline.errors import DataError

RESUME_FILE = "resume.safetensors"


def write_resume(
    path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, history: list[float]
) -> None:
    """Keep each module's weights and buffers, optimizer state and the validation accuracy of every epoch so far."""
    tensors = {
        f"{part}.{name}": value for part, module in modules.items() for name, value in module.state_dict().items()
    }
    for row, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{row}.{name}": torch.as_tensor(value) for name, value in state.items()}
    contiguous = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_durably(path, safetensors.torch.save(contiguous, {"history": json.dumps(history)}))


def read_resume(path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> list[float]:
    """Restore what `write_resume` kept; return the validation accuracies of the epochs done, empty without a file."""
    if not path.exists():
        return []
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            history: list[float] = json.loads((file.metadata() or {})["history"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        for part, module in modules.items():
            prefix = f"{part}."
            module.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    except (safetensors.SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"{path}: expected the state of an interrupted training; got a damaged file ({reason}). "
            "Remove the file, and training begins again"
        ) from error
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, row, field = name.split(".", 2)
            state.setdefault(int(row), {})[field] = _laid_out_as(parameters[int(row)], value)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return history


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """Return a moment in its parameter's memory layout: fused optimizers (torch 2.13) pair them by place in memory."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
