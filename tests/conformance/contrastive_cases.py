"""Cases of what tells images from each other. CRD's takes all negatives, whatever it draws: 3 classes of 2 images."""

from dataclasses import replace

import numpy as np
from loss_case import LossCase, Sample, array, softmax, with_features
from torch import nn

from pipeline.distillation.contrastive import ContrastiveRepresentationDistillation, InfoNce
from pipeline.distillation.loss import Term

SAMPLE = replace(with_features(((3, 2, 2), (4, 2, 2))), labels=np.array([0, 2, 1, 2, 1, 0]))


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
    """Return L from the banks and Z as they are; h is taken as the paper writes it, without logarithms."""
    assert isinstance(term, nn.Module)
    student_bank, teacher_bank = array(term.get_buffer("banks")).astype(float)
    z = np.exp(array(term.get_buffer("log_z")).astype(float))
    c = 4 / 6  # K / N
    total = 0.0
    for anchors, bank, z_own in zip(embeddings(sample, term), (teacher_bank, student_bank), z, strict=True):
        h = np.exp(anchors @ bank.T / 0.07) / z_own
        for i, label in enumerate(sample.labels):
            negatives = h[i, sample.labels != label]
            total -= np.log(h[i, i] / (h[i, i] + c)) + np.log(c / (negatives + c)).sum()
    return float(total / 6)


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
    "info_nce": LossCase(
        InfoNce(dimensions=8), info_nce, sample=SAMPLE, repeatable=False, gradient_of=("student_features",)
    ),
}
