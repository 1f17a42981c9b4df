"""Cases of what learns from features: hints, knowledge review, attention."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from loss_case import LossCase, Sample, array, with_features

from pipeline.distillation.attention import AttentionTransfer
from pipeline.distillation.hints import SRD, FitNet, HintTerm, LogSumTerm
from pipeline.distillation.loss import Term
from pipeline.distillation.review import Fusion, KnowledgeReview, ReviewTerm


def cells(size: int, grid: int) -> list[slice]:
    """Return the `grid` parts of `size` positions, which overlap where they do not divide."""
    return [slice(i * size // grid, -(-(i + 1) * size // grid)) for i in range(grid)]


def averaged(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = cells(maps.shape[2], height), cells(maps.shape[3], width)
    return np.stack([np.stack([maps[:, :, r, c].mean(axis=(2, 3)) for c in columns], -1) for r in rows], -2)


def nearest(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    rows = np.arange(height) * maps.shape[2] // height
    columns = np.arange(width) * maps.shape[3] // width
    result: np.ndarray = maps[:, :, rows][:, :, :, columns]
    return result


def convolved(maps: np.ndarray, weight: np.ndarray, stride: int = 1, padding: int = 0) -> np.ndarray:
    """Return the cross-correlation, as a sum over the kernel's positions."""
    maps = np.pad(maps, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    kernel = weight.shape[2:]
    height, width = (maps.shape[axis + 2] - kernel[axis] + 1 for axis in (0, 1))
    shifted = [
        np.einsum("bchw,oc->bohw", maps[:, :, i : i + height : stride, j : j + width : stride], weight[:, :, i, j])
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    result: np.ndarray = np.sum(shifted, axis=0)
    return result


def transposed(maps: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the transposed convolution 4x4 of stride 2 and padding 1: zeros between the positions, kernel turned."""
    num, channels, height, width = maps.shape
    spread = np.zeros((num, channels, 2 * height - 1, 2 * width - 1))
    spread[:, :, ::2, ::2] = maps
    return convolved(spread, weight[:, :, ::-1, ::-1].swapaxes(0, 1), padding=2)


def normalized(features: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """Return every channel with mean 0 and variance 1 over batch and space."""
    axes = (0, 2, 3) if features.ndim == 4 else (0,)
    mean, variance = features.mean(axis=axes, keepdims=True), features.var(axis=axes, keepdims=True)
    result: np.ndarray = (features - mean) / np.sqrt(variance + eps)
    return result


def fitnet(convolve: Callable[[np.ndarray, np.ndarray], np.ndarray], relu: bool) -> Callable[[Sample, Term], float]:
    def value(sample: Sample, term: Term) -> float:
        assert isinstance(term, HintTerm)
        (weight, *_affine) = map(array, term.projectors[0].parameters())
        projected = normalized(convolve(sample.student_features[0], weight))  # at the start scale is 1 and shift 0
        projected = np.maximum(projected, 0) if relu else projected
        return float(((projected - sample.teacher_features[0]) ** 2).mean())

    return value


def srd(exponent: float) -> Callable[[Sample, Term], float]:
    def value(sample: Sample, term: Term) -> float:
        assert isinstance(term, LogSumTerm)
        student, teacher = (
            feature.mean(axis=(2, 3)) if feature.ndim == 4 else feature
            for feature in (sample.student_features[0], sample.teacher_features[0])
        )
        h = normalized(student @ array(next(term.parameters())).T, eps=1e-4)
        return float(2 * np.log((np.abs(h - normalized(teacher, eps=1e-4)) ** exponent).sum()))

    return value


def with_a_sum_twice_as_large(value: float) -> float:
    return value + 2 * float(np.log(2))


def context_loss(y: np.ndarray, t: np.ndarray) -> float:
    sides = [side for side in (4, 2, 1) if side < min(t.shape[2:])]
    terms = [(1.0, ((y - t) ** 2).mean())]
    for k, side in enumerate(sides, start=1):
        terms.append((0.5**k, ((averaged(y, side, side) - averaged(t, side, side)) ** 2).mean()))
    return float(sum(share * loss for share, loss in terms) / sum(share for share, _ in terms))


def review(pooled_level: bool) -> Callable[[Sample, Term], float]:
    def value(sample: Sample, term: Term) -> float:
        assert isinstance(term, ReviewTerm)
        students, teachers = list(sample.student_features), list(sample.teacher_features)
        if pooled_level:
            students[-1], teachers[-1] = averaged(students[-1], 1, 1), averaged(teachers[-1], 1, 1)
        residual, total = None, 0.0
        for level in reversed(range(len(students))):
            fusion = term.fusions[level]
            assert isinstance(fusion, Fusion)
            residual = fused(fusion, students[level], residual, teachers[level].shape[2:])
            weight = array(fusion.expand.get_parameter("0.weight"))
            total += context_loss(normalized(convolved(residual, weight, padding=1)), teachers[level])
        return total

    return value


def fused(fusion: Fusion, student: np.ndarray, deeper: np.ndarray | None, size: tuple[int, ...]) -> np.ndarray:
    own = normalized(convolved(student, array(fusion.reduce.get_parameter("0.weight"))))
    if deeper is not None:
        assert fusion.attend is not None
        deeper = nearest(deeper, *own.shape[2:])
        weight, bias = array(fusion.attend.weight), array(fusion.attend.bias)  # type: ignore[arg-type]
        logits = convolved(np.concatenate([own, deeper], axis=1), weight) + bias[:, None, None]
        shares = 1 / (1 + np.exp(-logits))
        own = shares[:, [0]] * own + shares[:, [1]] * deeper
    return nearest(own, *size)


def attention(p: float) -> Callable[[Sample, Term], float]:
    def of(maps: np.ndarray) -> np.ndarray:
        summed = (np.abs(maps) ** p).sum(axis=1).reshape(len(maps), -1)
        result: np.ndarray = summed / np.linalg.norm(summed, axis=1, keepdims=True)
        return result

    def value(sample: Sample, term: Term) -> float:
        total = 0.0
        for student, teacher in zip(sample.student_features, sample.teacher_features, strict=True):
            sizes = [min(sides) for sides in zip(student.shape[2:], teacher.shape[2:], strict=True)]
            total += ((of(averaged(student, *sizes)) - of(averaged(teacher, *sizes))) ** 2).mean()
        return total

    return value


STUDENT = ("student_features",)
SMALLER = with_features(((3, 2, 2), (2, 4, 4)))
LARGER = with_features(((3, 4, 4), (2, 2, 2)))
NEARLY = with_features(((3, 4, 3), (2, 3, 3)))
LEVELS = with_features(((1, 3, 3), (2, 6, 5)), ((2, 3, 2), (2, 2, 2)), ((2, 2, 2), (3, 2, 2)))
TWO_MAPS = with_features(((3, 4, 4), (2, 4, 4)), ((2, 5, 3), (3, 3, 3)))
SAME_ATTENTION = replace(TWO_MAPS, student_features=tuple(-3 * map_ for map_ in TWO_MAPS.teacher_features))

CASES = {
    "fitnet": LossCase(
        FitNet(), fitnet(lambda x, w: convolved(x, w, 2, 1), relu=True), sample=LARGER, gradient_of=STUDENT
    ),
    "fitnet, student's map half as large": LossCase(
        FitNet(), fitnet(transposed, relu=True), sample=SMALLER, gradient_of=STUDENT
    ),
    "fitnet before the teacher's activation": LossCase(
        FitNet(teacher_layers=("stage:2:input",)),
        fitnet(convolved, relu=False),
        sample=NEARLY,
        gradient_of=STUDENT,
    ),
    "srd": LossCase(SRD(), srd(4), sample=LARGER, gradient_of=STUDENT, repeated=with_a_sum_twice_as_large),
    "srd of vectors": LossCase(
        SRD(exponent=3.0),
        srd(3),
        sample=with_features(((3,), (2,))),
        gradient_of=STUDENT,
        repeated=with_a_sum_twice_as_large,
    ),
    "review_kd": LossCase(
        KnowledgeReview(student_layers=("a", "b"), teacher_layers=("a:input", "b:input")),
        review(pooled_level=True),
        sample=LEVELS,
        gradient_of=STUDENT,
    ),
    "review_kd of maps alone": LossCase(
        KnowledgeReview(student_layers=("a", "b", "c"), teacher_layers=("a", "b", "c"), pooled_level=False),
        review(pooled_level=False),
        sample=LEVELS,
        gradient_of=STUDENT,
    ),
    "at": LossCase(
        AttentionTransfer(student_layers=("a", "b"), teacher_layers=("a", "b")),
        attention(2),
        sample=TWO_MAPS,
        zero=SAME_ATTENTION,
        gradient_of=STUDENT,
    ),
    "at, p = 3": LossCase(
        AttentionTransfer(student_layers=("a", "b"), teacher_layers=("a", "b"), p=3.0),
        attention(3),
        sample=TWO_MAPS,
        zero=SAME_ATTENTION,
        gradient_of=STUDENT,
    ),
}
