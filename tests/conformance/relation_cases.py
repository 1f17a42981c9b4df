"""Cases of what learns how samples lie to each other."""

from dataclasses import replace

import numpy as np
from loss_case import LossCase, Sample, with_features

from pipeline.distillation.loss import Term
from pipeline.distillation.sample_relations import RelationalKnowledgeDistillation, SimilarityPreserving

MAPS = with_features(((3, 2, 2), (4, 2, 2)))
TWO_LAYERS = with_features(((3, 2, 2), (4, 2, 2)), ((5,), (2, 3, 3)))
FIRST_TWO = ("stage:1", "stage:2")


def turned(features: np.ndarray, width: int) -> np.ndarray:
    """Return [B, D] turned in a space of `width` dimensions, three times as large."""
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(width, features.shape[1])))
    result: np.ndarray = 3 * features @ turn.T
    return result


def huber(x: float, y: float) -> float:
    difference = abs(x - y)
    return difference**2 / 2 if difference <= 1 else difference - 0.5


def relative_distances(f: np.ndarray) -> np.ndarray:
    d = np.array([[np.linalg.norm(a - b) for b in f] for a in f])
    result: np.ndarray = d / d[d > 0].mean()
    return result


def cosine(a: np.ndarray, anchor: np.ndarray, b: np.ndarray) -> float:
    lengths = np.linalg.norm(a - anchor) * np.linalg.norm(b - anchor)
    return float((a - anchor) @ (b - anchor) / lengths) if lengths else 0.0


def rkd(sample: Sample, term: Term) -> float:
    total = 0.0
    for student, teacher in zip(sample.student_features, sample.teacher_features, strict=True):
        s, t = (f.mean(axis=tuple(range(2, f.ndim))) for f in (student, teacher))
        distances = [huber(x, y) for x, y in zip(relative_distances(s).flat, relative_distances(t).flat, strict=True)]
        angles = [
            huber(cosine(s[i], s[j], s[k]), cosine(t[i], t[j], t[k])) for i, j, k in np.ndindex(len(s), len(s), len(s))
        ]
        total += 25 * float(np.mean(distances)) + 50 * float(np.mean(angles))
    return total


def similarities(features: np.ndarray) -> np.ndarray:
    flat = features.reshape(len(features), -1)
    products = np.array([[a @ b for b in flat] for a in flat])
    result: np.ndarray = products / np.linalg.norm(products, axis=1, keepdims=True)
    return result


def sp(sample: Sample, term: Term) -> float:
    pairs = zip(sample.student_features, sample.teacher_features, strict=True)
    return sum(float(np.linalg.norm(similarities(t) - similarities(s)) ** 2) / 36 for s, t in pairs)


def halved(value: float) -> float:
    """Return the value of twice as many entries in rows of length 1: their squares are half as large."""
    return value / 2


POOLED = MAPS.teacher_features[0].mean(axis=(2, 3))
FLAT = MAPS.teacher_features[0].reshape(6, -1)
CASES = {
    "rkd": LossCase(
        RelationalKnowledgeDistillation(),
        rkd,
        sample=MAPS,
        zero=replace(MAPS, student_features=(turned(POOLED, 7) + 5,)),
        gradient_of=("student_features",),
    ),
    "rkd of two pairs": LossCase(
        RelationalKnowledgeDistillation(student_layers=FIRST_TWO, teacher_layers=FIRST_TWO),
        rkd,
        sample=TWO_LAYERS,
        gradient_of=("student_features",),
    ),
    "sp": LossCase(
        SimilarityPreserving(),
        sp,
        sample=MAPS,
        zero=replace(MAPS, student_features=(turned(FLAT, 18),)),
        repeated=halved,
        gradient_of=("student_features",),
    ),
    "sp of two pairs": LossCase(
        SimilarityPreserving(student_layers=FIRST_TWO, teacher_layers=FIRST_TWO),
        sp,
        sample=TWO_LAYERS,
        repeated=halved,
        gradient_of=("student_features",),
    ),
}
