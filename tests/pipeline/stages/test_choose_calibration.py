"""The calibration that suits a model: judged on samples that its ranges do not come from."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from calibrated_files import RandomImages, calibrated_file

from pipeline.artifacts import CalibrationChoice, OnnxFile
from pipeline.export.tapped import find_evaluator
from pipeline.stages.choose_calibration import METHODS, choose_calibration
from pipeline.stages.equalize_onnx import equalize_onnx
from pipeline.stages.quantize_onnx import quantize_onnx
from targets import OnnxRuntime
from targets.target import Arrays

TARGET = OnnxRuntime()


def choose(folder: Path, feeds: RandomImages) -> tuple[CalibrationChoice, OnnxFile, OnnxFile]:
    prepared, _ = calibrated_file(folder)
    (folder / "equalized").mkdir()
    equalized = equalize_onnx(folder / "equalized", prepared, feeds, find_evaluator())
    scheme = TARGET.post_training_scheme
    found = choose_calibration(folder, prepared, equalized, feeds, scheme, TARGET.encoding, find_evaluator())
    return found, prepared, equalized


def test_the_best_of_all_that_were_tried_is_chosen_and_is_as_good_as_it_says(tmp_path: Path) -> None:
    feeds = RandomImages(12)
    found, prepared, equalized = choose(tmp_path, feeds)
    assert found.num_judged == 2
    assert found.snr_db == max(tried.snr_db for tried in found.tried)
    assert len(found.tried) >= len(METHODS) + 1
    model = equalized if found.is_equalized else prepared
    (tmp_path / "int8").mkdir()
    int8 = quantize_onnx(
        tmp_path / "int8", model, found.ranges, TARGET.post_training_scheme, TARGET.encoding, highest_opset=21
    )
    expected, got = (
        np.concatenate([run(path, feeds.take(range(2)).sample(place)) for place in range(2)])
        for path in (prepared.path, int8.path)
    )
    snr_db = 10 * np.log10((expected**2).sum() / ((got - expected) ** 2).sum())
    assert found.snr_db == pytest.approx(snr_db, abs=1)  # integer kernels round otherwise than Q/DQ as written


def test_too_few_samples_judge_nothing_and_the_first_method_is_taken(tmp_path: Path) -> None:
    found, _, _ = choose(tmp_path, RandomImages(3))
    assert (found.num_judged, found.tried) == (0, ())
    assert (found.method, found.is_equalized, found.is_corrected) == ("mean_squared_error", True, True)
    assert found.ranges.num_samples == 3


def run(path: Path, feeds: Arrays) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs: np.ndarray = session.run(None, feeds)[0]
    return outputs
