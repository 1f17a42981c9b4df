"""A model, and what was proved of it: `load()` gives what classifies images, and tests itself.

Rule: one package, Python 3.8, NumPy and ONNX Runtime; everything that differs between models is in constants.py.
"""

from .model import (
    GoldenAnswers,
    Model,
    ModelTampered,
    Pixels,
    PixelsRefused,
    Result,
    SelfTest,
    golden_holds,
    load,
)

__all__ = [
    "GoldenAnswers",
    "Model",
    "ModelTampered",
    "Pixels",
    "PixelsRefused",
    "Result",
    "SelfTest",
    "golden_holds",
    "load",
]
