"""Cases of networks that teach themselves."""

from dataclasses import replace

import numpy as np
from feature_cases import convolved, normalized
from loss_case import LossCase, Sample, array, softmax, with_features
from torch import nn

from pipeline.distillation.loss import Term
from pipeline.distillation.self_distillation import BeYourOwnTeacher

STAGES = with_features(((2, 5, 4), (1,)), ((3, 3, 2), (1,)), ((4, 3, 2), (1,)))
SAMPLE = replace(STAGES, teachers=(), teacher_features=())


def separable(maps: np.ndarray, state: dict[str, np.ndarray], stride: int) -> np.ndarray:
    """Return one block of a bottleneck: 3x3 a channel, 1x1 across channels, batch normalization, ReLU."""
    apart = state["0.weight"][:, 0]
    full = np.zeros((len(apart), len(apart), 3, 3))
    full[np.arange(len(apart)), np.arange(len(apart))] = apart
    maps = convolved(convolved(maps, full, stride, padding=1), state["1.weight"])
    scale, shift = (state[f"2.{name}"][:, None, None] for name in ("weight", "bias"))
    return np.maximum(normalized(maps) * scale + shift, 0)


def byot(sample: Sample, term: Term) -> float:
    assert isinstance(term, nn.Module)
    state = {name: array(value).astype(float) for name, value in term.state_dict().items()}
    teaching = softmax(sample.student / 3)
    deepest = sample.student_features[-1].mean(axis=(2, 3))
    total = 0.0
    for place, stride in ((0, 2), (1, 1)):
        own = f"exits.{place}."
        block = {name.removeprefix(own + "bottleneck."): value for name, value in state.items() if name.startswith(own)}
        features = separable(sample.student_features[place], block, stride).mean(axis=(2, 3))
        logits = features @ state[own + "linear.weight"].T + state[own + "linear.bias"]
        total += -0.7 * np.log(softmax(logits)[np.arange(6), sample.labels]).mean()
        total += 0.3 * 9 * (teaching * np.log(teaching / softmax(logits / 3))).sum(axis=1).mean()
        total += 0.03 * (np.linalg.norm(features - deepest, axis=1) ** 2).mean()
    return float(total)


CASES = {
    "byot": LossCase(BeYourOwnTeacher(), byot, sample=SAMPLE, gradient_of=("student_features",), taken_as_given=(2,)),
}
