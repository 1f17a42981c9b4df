"""Cases of what learns with a peer."""

from dataclasses import replace

import numpy as np
from loss_case import SAMPLE, LossCase, Sample, array, softmax
from torch import nn

from pipeline.distillation.loss import Term
from pipeline.distillation.online import DeepMutualLearning

WITH_IMAGES = replace(SAMPLE, images=np.random.default_rng(3).normal(size=(6, 2, 3, 3)), teachers=())


def dml(sample: Sample, term: Term) -> float:
    """Return the divergence from the peer, one linear layer; the peer's own loss is no part of the value."""
    assert isinstance(term, nn.Module)
    assert sample.images is not None
    weight, bias = (array(term.get_parameter(f"peer.1.{name}")).astype(float) for name in ("weight", "bias"))
    p, q = softmax(sample.images.reshape(6, -1) @ weight.T + bias), softmax(sample.student)
    return float((p * np.log(p / q)).sum(axis=1).mean())


CASES = {
    "dml": LossCase(DeepMutualLearning(), dml, sample=WITH_IMAGES),
    "dml, lambda = 2": LossCase(DeepMutualLearning(weight=2.0), dml, sample=WITH_IMAGES),
}
