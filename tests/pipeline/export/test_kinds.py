"""Every kind of network that edge devices run leaves as int8, with an open batch, in old and new operators."""

from pathlib import Path

import numpy as np
import pytest
from edge_networks import KINDS, Decoder, Inverted
from exports import IMAGES, captured, infer, quantized
from torch import nn

from pipeline.export.encode import encode
from pipeline.export.opset import lower
from pipeline.export.tidy import tidy
from targets.onnxruntime import OnnxRuntime

CASES = [kind if kind is Inverted else pytest.param(kind, marks=pytest.mark.slow) for kind in (*KINDS, Decoder)]


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_int8_computes_what_was_trained_at_any_batch(kind: type[nn.Module], tmp_path: Path) -> None:
    model = captured(kind, is_int8=True)  # captured with a batch of 2
    lower(model, 17)
    tidy(model, name="test")
    encode(model.graph, OnnxRuntime.encoding)
    tidy(model, name="test")
    in_torch = quantized(kind)(IMAGES).numpy()
    for batch in (1, len(IMAGES)):
        got = infer(model, tmp_path / f"{batch}.onnx", {"image": IMAGES[:batch].numpy()})
        # A code may fall to the other side where sums differ in the last bit, or a bias was rounded.
        assert np.abs(got - in_torch[:batch]).max() < 0.05 * in_torch.std()
