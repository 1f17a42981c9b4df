"""Cases of several teachers, of a teacher of fewer classes, and of a teacher heard in one word."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from loss_case import SAMPLE, LossCase, Sample, softmax

from pipeline.distillation.lifelong import LearningWithoutForgetting
from pipeline.distillation.loss import Term
from pipeline.distillation.multi_teacher import EnsembleDistillation
from pipeline.distillation.response import HardLabel

TEACHER = SAMPLE.teachers[0]
THREE = replace(SAMPLE, teachers=(TEACHER, np.roll(TEACHER, 1, axis=1), TEACHER[::-1].copy()))
OLD = replace(SAMPLE, teachers=(np.random.default_rng(2).normal(0, 3, (6, 3)),))


def probability(shares: tuple[float, ...], temperature: float, sample: Sample) -> np.ndarray:
    each = [share * softmax(z / temperature) for share, z in zip(shares, sample.teachers, strict=True)]
    return np.sum(each, axis=0)


def ensemble(shares: tuple[float, ...], temperature: float) -> Callable[[Sample, Term], float]:
    def value(sample: Sample, term: Term) -> float:
        q, p = probability(shares, temperature, sample), softmax(sample.student / temperature)
        return temperature**2 * float((q * np.log(q / p)).sum(axis=1).mean())

    return value


def lwf(temperature: float) -> Callable[[Sample, Term], float]:
    def value(sample: Sample, term: Term) -> float:
        old = softmax(sample.teachers[0] / temperature)
        new = softmax(sample.student[:, : old.shape[1]] / temperature)
        return float((old * np.log(old / new)).sum(axis=1).mean())

    return value


def hard_label(sample: Sample, term: Term) -> float:
    picked = np.argmax(sample.teachers[0], axis=1)
    return float(-np.log(softmax(sample.student)[np.arange(len(picked)), picked]).mean())


CASES = {
    "ensemble_kd": LossCase(
        EnsembleDistillation(),
        ensemble((1 / 3, 1 / 3, 1 / 3), 4.0),
        sample=THREE,
        zero=replace(THREE, student=4 * np.log(probability((1 / 3, 1 / 3, 1 / 3), 4.0, THREE))),
    ),
    "ensemble_kd, weighted": LossCase(
        EnsembleDistillation(temperature=1.0, teacher_weights=(3.0, 0.0, 1.0)),
        ensemble((0.75, 0.0, 0.25), 1.0),
        sample=THREE,
        zero=replace(THREE, student=np.log(probability((0.75, 0.0, 0.25), 1.0, THREE))),
    ),
    "lwf": LossCase(
        LearningWithoutForgetting(),
        lwf(2.0),
        sample=OLD,
        zero=replace(OLD, student=np.concatenate([OLD.teachers[0] + 2.0, SAMPLE.student[:, 3:]], axis=1)),
    ),
    "hard_label": LossCase(
        HardLabel(), hard_label, zero=replace(SAMPLE, student=1e3 * np.eye(5)[np.argmax(TEACHER, axis=1)])
    ),
}
