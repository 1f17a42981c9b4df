"""Decides "the p-quantile is at most the limit" after each look at a growing sample. Rule: never a guess.

The quantile is within the limit exactly if P(X > limit) <= 1 - p, so the number of samples above the
limit is all that matters, and for independent samples it is Binomial(n, P(X > limit)).

At look k both exact one-sided tests are made at level alpha_k = alpha / (k * (k + 1)):
- pass, if so few above would come with probability <= alpha_k from a quantile that is beyond the limit;
- fail, if so many above would come with probability <= alpha_k from a quantile that is within it.

Whatever the truth, only one of the two words is wrong. It is said at look k with probability <= alpha_k
(the binomial tails are monotone in P(X > limit), so its value 1 - p is the worst case), and by the union
bound at any look with probability <= sum of alpha_k = alpha * sum(1/k - 1/(k + 1)) = alpha, no matter how
many looks are taken or when one stops. This is error spending (Lan and DeMets, Biometrika 70, 1983) with
the sequence of Darling and Robbins (PNAS 57, 1967); looks at doubled sizes lose little by it.

Assumed: the size of a look does not depend on the samples in it, and the samples are independent, or the counts
are those of so many independent samples as they are worth (pipeline/measuring/dependence.py).
"""

import numpy as np

from pipeline.measuring import binomial
from pipeline.measuring.quantiles import exact_share
from pipeline.measuring.verdict import Verdict

ALPHA = 0.05


def level_of(look: int, alpha: float = ALPHA) -> float:
    """Return what of `alpha` look number `look`, from 1, may spend."""
    if look < 1:
        raise ValueError(f"level_of: expected a look from 1 on; got {look}")
    return alpha / (look * (look + 1))


def decide(num_samples: float, num_above: float, percentile: float, look: int, alpha: float = ALPHA) -> Verdict:
    """Decide from all samples so far whether the percentile is at most the limit.

    Args:
        num_samples: Independent samples taken until this look, or what the samples are worth.
        num_above: How many of them are greater than the limit.
        percentile: Which percentile is limited, 0 < percentile < 100.
        look: Number of this look, from 1.
        alpha: Probability of a wrong word, over all looks together.
    """
    if not 0 <= num_above <= num_samples:
        raise ValueError(f"decide: expected 0 <= num_above <= num_samples; got {num_above} of {num_samples}")
    allowed_share = float(1 - exact_share(percentile))
    alpha_k = level_of(look, alpha)
    if binomial.at_most(num_above, num_samples, allowed_share) <= alpha_k:
        return Verdict.PASS
    if binomial.at_least(num_above, num_samples, allowed_share) <= alpha_k:
        return Verdict.FAIL
    return Verdict.UNDECIDED


def count_above(samples_ns: np.ndarray, limit_ms: float) -> int:
    """Return how many samples are greater than the limit; a sample that equals it, as written, is not."""
    return int((samples_ns / 1e6 > limit_ms).sum())
