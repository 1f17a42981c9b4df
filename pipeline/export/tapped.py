"""Runs an ONNX model on the host, sample by sample, and gives tensors of its middle.

Rule: one sample's tensors are in memory at a time.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx

from pipeline.export.source import inputs_of
from pipeline.export.taps import with_outputs
from targets import reference_target
from targets.runner.feeds import align
from targets.target import Arrays, RunOptions, Target, TensorSpec

RunTapped = Callable[[onnx.ModelProto, Sequence[str]], Iterator[Arrays]]
"""Given a model and names of its tensors, gives these tensors for one sample after the other, always the same samples.

An array may be overwritten when the next sample is asked for.
"""


class Samples(Protocol):
    """Samples of a model's inputs."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def sample(self, index: int) -> Arrays:
        """Return one sample: a tensor for each input, with a first axis of 1."""
        ...


@dataclass(frozen=True)
class Evaluator:
    """A target that evaluates ONNX as written, in this process; its version counts with it."""

    target: Target
    version: str


def find_evaluator() -> Evaluator:
    """Return the reference of this host."""
    target = reference_target()
    return Evaluator(target, target.runtime_version())


def run_tapped(evaluator: Evaluator, samples: Samples) -> RunTapped:
    """Return how to run models on `samples`.

    The function that it returns raises DataError where a name is no tensor of the model, or a sample is broken, and
    ModelRefused where the target refuses the model or a sample.
    """

    def run(proto: onnx.ModelProto, names: Sequence[str]) -> Iterator[Arrays]:
        inputs = inputs_of(proto)
        fed = {spec.name for spec in inputs}
        with tempfile.TemporaryDirectory(prefix="tapped-") as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(with_outputs(proto, [name for name in names if name not in fed]), path)
            session = evaluator.target.open(path, RunOptions())
        infer: Callable[[], Arrays] | None = None
        bound: Arrays = {}
        for index in range(len(samples)):
            for name, array in _batches(samples.sample(index), inputs).items():
                if infer is None:
                    bound[name] = align(array)
                else:
                    bound[name][...] = array
            infer = infer or session.bind(bound)
            values = {**infer(), **bound}
            yield {name: values[name] for name in names}

    return run


def _batches(sample: Arrays, inputs: Sequence[TensorSpec]) -> Arrays:
    """Repeat a sample where the model's batch is fixed to more than one."""
    sizes = {spec.name: spec.shape[0] or 1 for spec in inputs if spec.shape}
    return {name: np.repeat(array, sizes.get(name, 1), axis=0) for name, array in sample.items()}
