"""A network and its weights: what stages pass on. Rule: weights come from safetensors, or torch files read safely."""

import hashlib
import json
import pickle
import re
import struct
import warnings
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from calibration.scheme import Scheme
from pipeline.artifacts import Checkpoint
from pipeline.canonical import OMITTED_WHEN_DEFAULT
from pipeline.durable import write_durably
from pipeline.errors import DataError
from pipeline.models import AnyModel, build_model

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts put the weights."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What wrappers put before every name."""
PICKLED = re.compile(r"(?:GLOBAL|Unsupported class) ([\w.]+)")
"""Names an object in torch's refusal (2.13)."""
SHOWN = 5


@dataclass(frozen=True)
class TrainedModel:
    """A network of the recipe with its checkpoint."""

    model: AnyModel
    checkpoint: Checkpoint
    scheme: Scheme | None = None
    """The grid that it was trained on; None for a float model."""
    float_layers: tuple[str, ...] = field(default=(), metadata=OMITTED_WHEN_DEFAULT)
    """What stayed in float on it: a plan of mixed precision, sorted (training.layer_names)."""

    def load(self) -> nn.Module:
        """Return the float network with its weights, in eval mode."""
        module = build_model(self.model, self.checkpoint.image_shape[2], len(self.checkpoint.classes))
        load_weights(module, read_state(self.checkpoint.path), where=str(self.checkpoint.path))
        return module.eval()


def save_weights(path: Path, module: nn.Module, provenance: Mapping[str, str] | None = None) -> str:
    """Write a module's state as safetensors and return the file's sha256; the same state gives the same bytes.

    `provenance`, what the weights came from, goes into the file's metadata, as one value: safetensors (0.8) writes
    several in an order that changes from call to call.
    """
    state = {name: value.detach().cpu().contiguous().clone() for name, value in sorted(module.state_dict().items())}
    content = safetensors.torch.save(state, {"provenance": json.dumps(provenance or {}, sort_keys=True)})
    write_durably(path, content)
    return hashlib.sha256(content).hexdigest()


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict: safetensors, or torch's own format with `weights_only`; what wraps it is taken off.

    Raises:
        DataError: the file is damaged, holds pickled objects, or no tensors.
    """
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise DataError(f"{path}: expected a safetensors file; got {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, struct.error) as error:
        if pickled := PICKLED.search(str(error)):
            raise DataError(
                f"{path}: expected tensors only; got a pickled {pickled[1]}, which could run any code when loaded, and "
                "is refused. Save `model.state_dict()` alone, best as .safetensors"
            ) from error
        reason = "bytes that are not one" if isinstance(error, pickle.UnpicklingError) else _first_line(error)
        raise DataError(f"{path}: expected a torch checkpoint or .safetensors; got {reason}") from error
    for key in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    state = {str(n): t for n, t in found.items() if isinstance(t, Tensor)} if isinstance(found, Mapping) else {}
    if not state:
        raise DataError(f"{path}: expected a state dict (names to tensors); got {type(found).__name__} without tensors")
    return state


def load_weights(module: nn.Module, state: dict[str, Tensor], *, where: str) -> None:
    """Load `state` into `module`; every name, but for a wrapper's prefix, and every shape must fit.

    Raises:
        DataError: lists missing, unexpected and mis-shaped names.
    """
    own = module.state_dict()
    state = _without_prefixes(state, own.keys())
    optional = {name for name in own if name.endswith("num_batches_tracked")}
    missing = sorted(own.keys() - state.keys() - optional)
    unexpected = sorted(state.keys() - own.keys())
    shapes = [
        f"{name} (expected {list(own[name].shape)}, got {list(state[name].shape)})"
        for name in sorted(own.keys() & state.keys())
        if own[name].shape != state[name].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"{len(names)} {what}: {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"
            for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
            if names
        ]
        raise DataError(
            f"{where}: expected the weights of {type(module).__name__.lstrip('_')} ({len(own)} tensors); "
            f"got {'; '.join(parts)}. Name the model that the checkpoint was made for"
        )
    module.load_state_dict(state, strict=False)


def _without_prefixes(state: dict[str, Tensor], known: Set[str]) -> dict[str, Tensor]:
    """Take a prefix off where every name has it and no name is known with it."""
    for prefix in PREFIXES:
        if state.keys().isdisjoint(known) and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
