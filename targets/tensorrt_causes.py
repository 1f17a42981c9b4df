"""Why TensorRT computes operators in float between int8 ones. Rule: data only.

By NVIDIA's documents (explicit quantization, supported operators of 8.5 to 11), since nothing here executes TensorRT:
each reason says so. Devices carry this file: Python 3.8, standard library only.
"""

from __future__ import annotations

from typing import Tuple

from targets.fusion import FloatCause

NO_KERNEL = "no int8 kernel, by NVIDIA's documents"
POINTWISE = "fused into one pointwise kernel, which computes in float, by NVIDIA's documents"
RECTIFIER = "use ReLU in the student, which the convolution before it absorbs"
FOLDED_NORM = "use BatchNorm in the student, which folds into the convolution before it"
ATTENTION = 'none is needed: float is its way in attention; fp16 makes it faster (rest = "fp16")'

FLOAT_CAUSES: Tuple[FloatCause, ...] = (
    FloatCause(("HardSigmoid", "Mul"), "HardSwish (as HardSigmoid and Mul)", POINTWISE, RECTIFIER),
    FloatCause(("Sigmoid", "Mul"), "SiLU", POINTWISE, RECTIFIER),
    FloatCause(("Softplus", "Tanh", "Mul"), "Mish", POINTWISE, RECTIFIER),
    FloatCause(("HardSwish",), "HardSwish", POINTWISE, RECTIFIER),
    FloatCause(("HardSigmoid",), "HardSigmoid", POINTWISE, RECTIFIER),
    FloatCause(("Sigmoid",), "Sigmoid", POINTWISE, RECTIFIER),
    FloatCause(("Gelu",), "GELU", POINTWISE, RECTIFIER),
    FloatCause(("Erf",), "GELU, or another use of Erf", POINTWISE, RECTIFIER),
    FloatCause(("Elu",), "ELU", POINTWISE, RECTIFIER),
    FloatCause(("Tanh",), "Tanh", POINTWISE, RECTIFIER),
    FloatCause(("Softplus",), "Softplus", POINTWISE, RECTIFIER),
    FloatCause(("Exp",), "Exp", NO_KERNEL, "take it out of the student"),
    FloatCause(("Softmax",), "Softmax", NO_KERNEL, ATTENTION),
    FloatCause(("LayerNormalization",), "LayerNorm", NO_KERNEL, FOLDED_NORM),
    FloatCause(("InstanceNormalization",), "InstanceNorm", NO_KERNEL, FOLDED_NORM),
    FloatCause(("GroupNormalization",), "GroupNorm", NO_KERNEL, FOLDED_NORM),
    FloatCause(("ReduceMean",), "a mean", NO_KERNEL, "average over both image axes (AdaptiveAvgPool2d(1))"),
    FloatCause(
        ("Resize",), "interpolation", "its int8 form keeps to few modes, by NVIDIA's documents", 'use mode="nearest"'
    ),
)
