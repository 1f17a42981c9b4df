from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from benchmarks.quantization_row import RUNS, TURNS, Contender, accuracy_of, time_contenders
from targets.null import Null, NullSession
from targets.processing import Processing
from targets.target import Arrays, RunOptions


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """A model that gives back its input: four pixels of one channel, flattened to logits."""
    image = make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 1, 2, 2])
    logits = make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 4])
    graph = make_graph([make_node("Flatten", ["image"], ["logits"])], "identity", [image], [logits])
    onnx.save(make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=10), tmp_path / "identity.onnx")
    return tmp_path / "identity.onnx"


@dataclass(frozen=True)
class Counting(Null):
    """The null target, which counts inferences by file."""

    counts: Counter[str] = field(default_factory=Counter)

    def open(self, artifact: Path, options: RunOptions) -> NullSession:
        session, counts = Null.open(self, artifact, options), self.counts

        class Counted(NullSession):
            def bind(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], Arrays]:
                infer = session.bind(feeds)
                return lambda: (counts.update([artifact.name]), infer())[1]

        return Counted(session._evaluator, session.inputs, session.outputs, 0.0)


FEEDS = {"image": np.zeros((1, 1, 2, 2), np.float32)}


@pytest.mark.slow
def test_every_file_is_timed_in_every_round(identity: Path) -> None:
    target, slow = Counting(), identity.with_name("slow.onnx")
    slow.write_bytes(identity.read_bytes())
    contenders = [Contender(identity, "a", "fp32"), Contender(slow, "b", "fp32")]
    timings = time_contenders(target, contenders, FEEDS, rounds=2)
    assert all(len(timing.rounds_ms) == 2 for timing in timings.values())
    assert all(timing.min_ms <= timing.p50_ms for timing in timings.values())
    assert all(count >= 2 * TURNS * RUNS for count in target.counts.values())


def test_equal_bytes_with_equal_floats_are_timed_once(identity: Path) -> None:
    copy = identity.with_name("copy.onnx")
    copy.write_bytes(identity.read_bytes())
    target = Counting()
    contenders = [Contender(identity, "same", "fp32"), Contender(copy, "same", "fp32")]
    assert set(time_contenders(target, contenders, FEEDS, rounds=1)) == {("same", "fp32")}
    assert set(target.counts) == {"copy.onnx"}


def test_accuracy_is_the_share_of_right_images(identity: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images_NHWC = np.zeros((3, 2, 2, 1), np.uint8)
    for index, place in enumerate((0, 3, 2)):
        images_NHWC[index].reshape(-1)[place] = 255
    labels_N = np.array([0, 3, 1])
    processing = Processing(scale=(1 / 255,), bias=(0.0,), activation="softmax")
    accuracy = accuracy_of(Null(), Contender(identity, "a", "fp32"), images_NHWC, labels_N, processing)
    assert accuracy == 2 / 3
    assert capsys.readouterr().out == ""
