"""Cases of what learns with a peer."""

from dataclasses import replace

import numpy as np
from loss_case import SAMPLE, LossCase, Sample, array, softmax
from torch import nn

from pipeline.distillation.loss import Term
from pipeline.distillation.online import DeepMutualLearning

WITH_IMAGES = replace(SAMPLE, images=np.random.default_rng(3).normal(size=(6, 2, 3, 3)), teachers=())


def of_peer(sample: Sample, term: Term) -> np.ndarray:
    """Return the logits of the peer, one linear layer."""
    assert isinstance(term, nn.Module)
    assert sample.images is not None
    weight, bias = (array(term.get_parameter(f"peer.1.{name}")).astype(float) for name in ("weight", "bias"))
    result: np.ndarray = sample.images.reshape(6, -1) @ weight.T + bias
    return result


def like_peer(term: Term) -> Sample:
    """Return the student that says what its peer does; a shift of all logits is free."""
    return replace(WITH_IMAGES, student=of_peer(WITH_IMAGES, term) + 2.0)


def dml(sample: Sample, term: Term) -> float:
    """Return the divergence from the peer; the peer's own loss is no part of the value."""
    p, q = softmax(of_peer(sample, term)), softmax(sample.student)
    return float((p * np.log(p / q)).sum(axis=1).mean())


CASES = {
    "dml": LossCase(DeepMutualLearning(), dml, sample=WITH_IMAGES, zero=like_peer, taught_apart=("peer.",)),
    "dml, lambda = 2": LossCase(
        DeepMutualLearning(weight=2.0), dml, sample=WITH_IMAGES, zero=like_peer, taught_apart=("peer.",)
    ),
}
