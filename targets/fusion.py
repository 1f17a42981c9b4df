"""Why operators run in float beside int8 ones: what each target declares, as data, for the fusion proof.

Rule: data only; an entry was seen to be true on the runtime, or says whose documents tell it.
Devices carry this file: Python 3.8, standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple


@dataclass(frozen=True)
class FloatCause:
    """Why a runtime computes an operator in float between quantized ones, and what to change in the student."""

    operators: Tuple[str, ...]
    """The ONNX operators that make it, all of which must be there: one, or a pattern such as Sigmoid and Mul."""
    name: str
    """What people call it."""
    reason: str
    """In words, to stand in brackets."""
    remedy: str
    """What to do, as an imperative about the student or the deployment."""
