"""The objective of one run: the recipe's losses, built once, weighted and named."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from pipeline.distillation import AnyLoss
from pipeline.distillation.loss import Batch, Loss
from pipeline.errors import RecipeError
from pipeline.user_files import UserObject


class WeightedLosses:
    """The sum of losses; a term's name is its kind, numbered where a kind comes twice."""

    def __init__(self, losses: Sequence[AnyLoss]) -> None:
        self._terms: dict[str, Loss] = {}
        for loss in losses:
            name = loss.kind.rpartition(":")[2] if isinstance(loss, UserObject) else loss.kind
            while name in self._terms:
                name += "'"
            self._terms[name] = _build_user_loss(loss) if isinstance(loss, UserObject) else loss

    @property
    def needs_teacher(self) -> bool:
        """Whether any term reads the teacher's logits."""
        return any(loss.needs_teacher for loss in self._terms.values())

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Return every term, weighted, in float32."""
        with torch.autocast(batch.student.device.type, enabled=False):
            return {name: loss.weight * loss(batch) for name, loss in self._terms.items()}


def _build_user_loss(loss: UserObject) -> Loss:
    built = loss.build()
    lacking = [name for name in ("weight", "needs_teacher", "__call__") if not hasattr(built, name)]
    if lacking:
        raise RecipeError(
            f"{loss.kind}: expected a loss with weight, needs_teacher and __call__(batch); "
            f"got {type(built).__name__} without {', '.join(lacking)}"
        )
    return cast(Loss, built)
