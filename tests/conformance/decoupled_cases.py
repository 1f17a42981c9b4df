"""Cases of the losses that part the true class from the others: written class by class, from the papers' equations."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from loss_case import SAMPLE, LossCase, Sample, softmax

from pipeline.distillation.decoupled import DecoupledDistillation, NormalizedDistillation
from pipeline.distillation.loss import Term

LIKE_TEACHER = replace(SAMPLE, student=SAMPLE.teachers[0])


def others(z: np.ndarray, label: int) -> np.ndarray:
    return softmax(np.delete(z, label))


def dkd(alpha: float, beta: float, temperature: float) -> Callable[[Sample, Term], float]:
    def of_image(student: np.ndarray, teacher: np.ndarray, label: int) -> float:
        p, q = softmax(student / temperature)[label], softmax(teacher / temperature)[label]
        on_target = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
        of_student, of_teacher = others(student / temperature, label), others(teacher / temperature, label)
        return float(alpha * on_target + beta * (of_teacher * np.log(of_teacher / of_student)).sum())

    def value(sample: Sample, term: Term) -> float:
        images = zip(sample.student, sample.teachers[0], sample.labels, strict=True)
        return temperature**2 * float(np.mean([of_image(*image) for image in images]))

    return value


def nkd(gamma: float, temperature: float) -> Callable[[Sample, Term], float]:
    def of_image(student: np.ndarray, teacher: np.ndarray, label: int) -> float:
        on_target = -softmax(teacher)[label] * np.log(softmax(student)[label])
        of_student, of_teacher = others(student / temperature, label), others(teacher / temperature, label)
        return float(on_target - gamma * temperature**2 * (of_teacher * np.log(of_student)).sum())

    def value(sample: Sample, term: Term) -> float:
        images = zip(sample.student, sample.teachers[0], sample.labels, strict=True)
        return float(np.mean([of_image(*image) for image in images]))

    return value


CASES = {
    "dkd": LossCase(DecoupledDistillation(), dkd(1.0, 2.0, 4.0), zero=LIKE_TEACHER),
    "dkd as on ImageNet": LossCase(
        DecoupledDistillation(temperature=1.0, beta=0.5, alpha=0.7), dkd(0.7, 0.5, 1.0), zero=LIKE_TEACHER
    ),
    "nkd": LossCase(NormalizedDistillation(), nkd(1.5, 1.0)),
    "nkd, T = 3": LossCase(NormalizedDistillation(temperature=3.0, gamma=0.5), nkd(0.5, 3.0)),
}
