"""Whether samples look to a model as its training data did. Rule: only what the model itself tells is believed."""

from itertools import islice

import numpy as np
import onnx

from pipeline.export.tapped import RunTapped

ENOUGH_SAMPLES = 8
LARGEST_RATIO = 8.0
"""Of variances: a few images may have half or twice the spread of the training data, not eight times."""
LARGEST_SHIFT = 2.0
"""Of means, in standard deviations of the training data."""


def check_input(proto: onnx.ModelProto, run: RunTapped) -> str | None:
    """Return a warning where what reaches the first BatchNormalization is not what it was trained with, else None.

    It keeps mean and variance of each of its input's channels over the training data. Compared are the median over
    channels of the variances' ratio, and of the means' distance; a model whose BatchNormalization is folded tells
    nothing.

    Args:
        proto: as the user gave it, nothing folded.
        run: runs it on samples.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    found = [node for node in proto.graph.node if node.op_type == "BatchNormalization"]
    if not found or any(name not in constants for name in found[0].input[3:5]):
        return None
    first = found[0]
    trained_mean, trained_variance = (onnx.numpy_helper.to_array(constants[name]) for name in first.input[3:5])
    samples = islice(run(proto, [first.input[0]]), ENOUGH_SAMPLES)
    values_NCx = np.concatenate([sample[first.input[0]].astype(np.float64) for sample in samples])
    others = tuple(axis for axis in range(values_NCx.ndim) if axis != 1)
    spread = np.sqrt(np.maximum(trained_variance, np.finfo(np.float32).tiny))
    ratio = float(np.median(values_NCx.var(axis=others) / spread**2))
    shift = float(np.median(np.abs(values_NCx.mean(axis=others) - trained_mean) / spread))
    if 1 / LARGEST_RATIO <= ratio <= LARGEST_RATIO and shift <= LARGEST_SHIFT:
        return None
    return (
        f"the samples do not look as the training data did: before the first BatchNormalization {first.name!r} "
        f"the variance is {ratio:.3g} times the trained one, and the mean is off by {shift:.3g} standard deviations; "
        "look at --mean, --std, --pixels and --channels"
    )
