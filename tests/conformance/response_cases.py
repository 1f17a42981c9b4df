"""Cases of what learns from labels and logits."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from loss_case import SAMPLE, LossCase, Sample, softmax

from pipeline.distillation.labels import CrossEntropy
from pipeline.distillation.loss import Term
from pipeline.distillation.response import KnowledgeDistillation

LIKE_TEACHER = replace(SAMPLE, student=SAMPLE.teachers[0])
MIXED = replace(SAMPLE, mixed=(np.roll(SAMPLE.labels, 1), np.linspace(0.5, 1.0, 6)))


def cross_entropy(smoothing: float) -> Callable[[Sample, Term], float]:
    def value(sample: Sample, term: Term) -> float:
        num, classes = sample.student.shape
        q = np.full((num, classes), smoothing / classes)
        q[np.arange(num), sample.labels] += 1 - smoothing
        if sample.mixed is not None:
            partners, share = sample.mixed
            other = np.full((num, classes), smoothing / classes)
            other[np.arange(num), partners] += 1 - smoothing
            q = share[:, None] * q + (1 - share[:, None]) * other
        return float(-(q * np.log(softmax(sample.student))).sum(axis=1).mean())

    return value


def standardized(z: np.ndarray) -> np.ndarray:
    result: np.ndarray = (z - z.mean(axis=1, keepdims=True)) / (z.std(axis=1, ddof=1, keepdims=True) + 1e-7)
    return result


def kd(
    temperature: float, prepare: Callable[[np.ndarray], np.ndarray] = lambda z: z
) -> Callable[[Sample, Term], float]:
    def value(sample: Sample, term: Term) -> float:
        p = softmax(prepare(sample.teachers[0]) / temperature)
        q = softmax(prepare(sample.student) / temperature)
        return float(temperature**2 * (p * np.log(p / q)).sum(axis=1).mean())

    return value


CASES = {
    "cross_entropy": LossCase(CrossEntropy(), cross_entropy(0.0)),
    "smoothed": LossCase(CrossEntropy(label_smoothing=0.1), cross_entropy(0.1)),
    "cross-entropy of mixed images": LossCase(CrossEntropy(label_smoothing=0.1), cross_entropy(0.1), sample=MIXED),
    "kd": LossCase(KnowledgeDistillation(), kd(4.0), zero=LIKE_TEACHER),
    "kd, T = 1": LossCase(KnowledgeDistillation(temperature=1.0), kd(1.0), zero=LIKE_TEACHER),
    "standardized kd": LossCase(
        KnowledgeDistillation(standardize=True, temperature=2.0),
        kd(2.0, standardized),
        zero=replace(SAMPLE, student=3 * SAMPLE.teachers[0] + 7),
    ),
}
