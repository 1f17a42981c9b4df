"""How long and how fast: the values of one training run."""

import math
from typing import Literal

from pydantic import Field

from pipeline.parts import RecipePart


class TrainingSchedule(RecipePart):
    """One run of the fit loop. The learning rate warms up linearly, then falls to zero along a cosine, step by step."""

    epochs: int = Field(ge=0)
    """Passes over the training images; 0 trains nothing (for quantization: post-training quantization)."""
    batch_size: int = Field(default=128, ge=1)
    """Images a step; the last, incomplete batch of an epoch is dropped."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd with Nesterov momentum, or adamw."""
    learning_rate: float = Field(default=0.1, gt=0)
    """Peak learning rate."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of sgd; beta1 of adamw."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """Not applied to biases and normalization."""
    warmup_epochs: float = Field(default=1.0, ge=0)
    """Epochs of linear warm-up."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient; no clipping if left out."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Moving average of the weights, by this factor a step (0.999); it ships, and is what is validated."""
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed"
    """bf16-mixed: autocast to bfloat16, weights in float32."""
    seed: int = Field(default=0, ge=0)
    """Of initial weights, order and dropout."""

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of `step`, counted from 0 over the whole run."""
        warmup = self.warmup_epochs * steps_per_epoch
        total = self.epochs * steps_per_epoch
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))
