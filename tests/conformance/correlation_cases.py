"""Cases of DIST: NumPy's own correlation coefficients."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from loss_case import SAMPLE, LossCase, Sample, softmax

from pipeline.distillation.correlation import CorrelationDistillation
from pipeline.distillation.loss import Term


def dist(beta: float, gamma: float, temperature: float) -> Callable[[Sample, Term], float]:
    def distance(p: np.ndarray, q: np.ndarray) -> float:
        return float(np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)]))

    def value(sample: Sample, term: Term) -> float:
        p, q = softmax(sample.student / temperature), softmax(sample.teachers[0] / temperature)
        return temperature**2 * (beta * distance(p, q) + gamma * distance(p.T, q.T))

    return value


def shrunk_to_uniform(logits: np.ndarray) -> np.ndarray:
    """Return logits whose probabilities are half the given ones' and half uniform: correlated by 1 all over."""
    return np.log(0.5 * softmax(logits) + 0.5 / logits.shape[1])


CASES = {
    "dist": LossCase(CorrelationDistillation(), dist(1.0, 1.0, 4.0), zero=replace(SAMPLE, student=SAMPLE.teachers[0])),
    "dist as on ImageNet": LossCase(
        CorrelationDistillation(temperature=1.0, beta=0.5, gamma=2.0),
        dist(0.5, 2.0, 1.0),
        zero=replace(SAMPLE, student=shrunk_to_uniform(SAMPLE.teachers[0])),
    ),
}
