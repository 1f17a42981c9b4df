"""Your own loss. `recipe.toml` names a class of this file, as `./my_loss.py:MatchLogits`.

A loss has `weight`, `needs_teacher`, and is called with a batch: logits float32 [B, K] of the student and, where it
needs them, of the teacher, and labels int64 [B]. It returns a scalar: the mean over the batch, without the weight.
"""

from dataclasses import dataclass

from torch import Tensor

from pipeline.distillation.loss import Batch


@dataclass(frozen=True, kw_only=True)
class MatchLogits:
    """Ba and Caruana 2014 (arXiv 1312.6184), equation 1: L = (1/2B) sum_i ||z_s - z_t||^2, summed over classes.

    Each row is centred first: softmax does not see a constant that is added to a whole row.
    """

    weight: float = 1.0
    """Factor in the objective; `arguments = { weight = 0.05 }` in the recipe."""

    @property
    def needs_teacher(self) -> bool:
        """Always."""
        return True

    def __call__(self, batch: Batch) -> Tensor:
        """Return the term."""
        assert batch.teacher is not None
        difference = _centred(batch.student) - _centred(batch.teacher)
        return 0.5 * difference.square().sum(dim=1).mean()


def _centred(logits_BK: Tensor) -> Tensor:
    return logits_BK - logits_BK.mean(dim=1, keepdim=True)
