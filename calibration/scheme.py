"""What a target declares about int8: the grid that training obeys and the encoding that its runtime fuses.

Rule: data only. Devices carry this file, so it keeps to Python 3.8 and the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Optional

LATER = MappingProxyType({"omitted_when_default": True})
"""Of a field that came later: in a store key it counts only where it differs from its default."""


@dataclass(frozen=True)
class Scheme:
    """The grid on which a model is trained: the numerical truth of a quantized model.

    Two targets with equal schemes share one quantized training. Weights are int8, symmetric,
    per output channel. Activations are quantized per tensor, with zero point 0 unless said otherwise.
    """

    nonnegative: Literal["uint8", "int8"] = "uint8"
    """Codes of a tensor that is never negative: 0..255, or 0..127 where a runtime has no uint8."""
    weight_bits: int = 8
    """Bits of a weight's code, 2 to 8; always stored as int8."""
    signed: Literal["symmetric", "asymmetric", "skewed"] = field(default="symmetric", metadata=LATER)
    """Grid of a tensor that can be negative: int8 with zero point 0, or uint8 with the zero point that its range asks
    for (SiLU gives -0.3 to 6: half of a symmetric grid would be idle); `skewed`: the latter where one side of zero is
    four times as wide as the other or more. ONNX graphs alone can be put on zero points other than 0."""


@dataclass(frozen=True)
class Encoding:
    """The form of explicit Q/DQ in ONNX that a runtime fuses (architecture, decision 6)."""

    signed: Literal["int8", "uint8"]
    """Codes of tensors that can be negative: int8 with zero point 0, or uint8 with zero point 128."""
    nonnegative: Literal["uint8", "int8"]
    """Codes of tensors that are never negative; int8 re-scales a uint8 grid by 255/127 (one bit is lost)."""
    bias: Literal["int32", "float32"]
    """int32 codes with scale = input scale x weight scale, or plain float."""
    outputs: bool
    """Whether an op's output is quantized too where only float ops, or nobody, reads it."""
    residual: Literal["both", "skip", "rounded"] = "both"
    """Which inputs of an Add are quantized: both, or only the skip branch. `rounded`: both, and an operator that
    changes nothing keeps the runtime from leaving out the rounding between a convolution and an Add that it fuses."""
    concatenated: Optional[Literal["uint8"]] = field(default=None, metadata=LATER)
    """Codes of a tensor that can be negative and comes out of a Concat, where they must not be those of `signed`."""
