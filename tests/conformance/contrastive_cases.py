"""Cases of what tells images from each other. CRD's take all negatives, whatever it draws."""

from dataclasses import replace

import numpy as np
from loss_case import LossCase, Sample, array, softmax, with_features
from torch import nn

from pipeline.distillation.contrastive import ContrastiveRepresentationDistillation, InfoNce
from pipeline.distillation.loss import Term

SAMPLE = replace(with_features(((3, 2, 2), (4, 2, 2))), labels=np.array([0, 2, 1, 2, 1, 0]))
UNEQUAL = replace(SAMPLE, labels=np.array([0, 2, 1, 0, 1, 0]))


def embeddings(sample: Sample, term: Term) -> tuple[np.ndarray, np.ndarray]:
    """Return g_s and g_t."""
    assert isinstance(term, nn.Module)
    state = {name: array(value).astype(float) for name, value in term.state_dict().items()}
    both = []
    for who, maps in (("student", sample.student_features[0]), ("teacher", sample.teacher_features[0])):
        points = maps.mean(axis=(2, 3)) @ state[f"{who}.linear.weight"].T + state[f"{who}.linear.bias"]
        both.append(points / np.linalg.norm(points, axis=1, keepdims=True))
    return both[0], both[1]


def crd(sample: Sample, term: Term) -> float:
    """Return L of the first batch, from the banks as drawn; h is as the paper writes it, without logarithms.

    K is as many as the largest class leaves; an image with more negatives counts K times their mean, in Z, too.
    """
    assert isinstance(term, nn.Module)
    student_bank, teacher_bank = array(term.get_buffer("banks")).astype(float)
    num, is_other = len(sample.labels), sample.labels[:, None] != sample.labels
    k = is_other.sum(axis=1).min()
    c = k / num
    total = 0.0
    for anchors, bank in zip(embeddings(sample, term), (teacher_bank, student_bank), strict=True):
        warm = np.exp(anchors @ bank.T / 0.07)
        z = num * np.mean([(warm[i, i] + k * warm[i, is_other[i]].mean()) / (1 + k) for i in range(num)])
        h = warm / z
        for i in range(num):
            negatives = np.log(c / (h[i, is_other[i]] + c))
            total -= np.log(h[i, i] / (h[i, i] + c)) + k * negatives.mean()
    return float(total / num)


def info_nce(sample: Sample, term: Term) -> float:
    student, teacher = embeddings(sample, term)
    scores = student @ teacher.T / 0.1
    both = np.diag(softmax(scores)), np.diag(softmax(scores.T))
    return float(-np.log(both).sum(axis=0).mean() / 2)


CASES = {
    "crd": LossCase(
        ContrastiveRepresentationDistillation(dimensions=8, num_negatives=4),
        crd,
        sample=SAMPLE,
        gradient_of=("student_features",),
    ),
    "crd, classes of other sizes": LossCase(
        ContrastiveRepresentationDistillation(dimensions=8, num_negatives=3),
        crd,
        sample=UNEQUAL,
        gradient_of=("student_features",),
    ),
    "info_nce": LossCase(
        InfoNce(dimensions=8),
        info_nce,
        sample=SAMPLE,
        repeated=lambda value: value + np.log(2),  # as many scores again in every denominator
        gradient_of=("student_features",),
    ),
}
