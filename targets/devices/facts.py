"""What comes back from a device, as types."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Dict, Mapping, Tuple

from targets.target import Layer, TensorSpec


@dataclass(frozen=True)
class DeviceFacts:
    """What a device says of itself."""

    identity: Dict[str, str]
    """What a compiled artifact depends on: architecture, processor, cores, system, runtime; never a host name."""
    context: Dict[str, object]
    """What a measurement depends on, as it is now: clocks, load, pressure."""
    float_types: Tuple[str, ...] = ()
    """The float types that the runtime computes in on this processor; they follow from the identity."""

    @property
    def digest(self) -> str:
        """sha256 over canonical JSON of the identity."""
        text = json.dumps(self.identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def read_facts(result: Mapping[str, object]) -> DeviceFacts:
    """Return the facts in a job's result."""
    identity, context, float_types = result["identity"], result["context"], result["float_types"]
    assert isinstance(identity, dict)
    assert isinstance(context, dict)
    assert isinstance(float_types, list)
    return DeviceFacts(identity, context, tuple(float_types))


def read_layers(result: Mapping[str, object]) -> Tuple[Layer, ...]:
    """Return the layers in a job's result."""
    layers = result["layers"]
    assert isinstance(layers, list)
    return tuple(
        Layer(**{**layer, "reads": tuple(layer["reads"]), "sources": tuple(layer["sources"])}) for layer in layers
    )


def read_specs(specs: object) -> Tuple[TensorSpec, ...]:
    """Return the tensors that a job's result lists."""
    assert isinstance(specs, list)
    return tuple(TensorSpec(spec["name"], spec["dtype"], tuple(spec["shape"])) for spec in specs)
