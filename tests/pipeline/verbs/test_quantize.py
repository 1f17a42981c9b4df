"""`edgeproof quantize`: a file, figures and a verdict for any ONNX model; one clear line for what cannot be."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image
from small_models import two_convolutions

from pipeline.cli import run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small model, and 24 images."""
    onnx.save(two_convolutions(), tmp_path / "small.onnx")
    (tmp_path / "images").mkdir()
    random = np.random.default_rng(0)
    for number in range(24):
        pixels = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


QUICK = ["--max-seconds", "1", "--accept-slower"]


def test_a_model_becomes_int8_with_its_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["quantize", "small.onnx", "--data", "images", "--target", "onnxruntime", "--mean", "0.5", *QUICK]
    assert run([*command, "--json", "--out", "int8.onnx"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((folder / "int8.json").read_text()) == found
    kinds = {node.op_type for node in onnx.load(folder / "int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert found["folded"]["parity"][0]["max_abs_diff"] < 1e-5
    assert found["int8"]["parity"][0]["snr_db"] > 30
    assert found["int8"]["executed"]["int8"] >= 2
    assert (found["calibration_samples"], found["calibration"]["num_judged"], found["held_out_samples"]) == (16, 4, 4)
    assert found["method"] == found["calibration"]["method"]
    assert {tensor["name"] for tensor in found["tensors"]} >= {"image"}
    assert found["speedup"]["rounds"] == 21


@pytest.mark.slow
def test_a_second_call_only_measures_and_people_get_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["quantize", "small.onnx", "--data", "images", "--target", "null", "--float", "second", *QUICK]
    assert run(command) == 0
    first = capsys.readouterr().out
    assert "warning: nobody said how pixels become numbers" in first
    assert "parity with the float file as written, 4 held-out samples" in first
    assert "times as fast as the faster float" in first
    assert run(command) == 0
    assert "choose_calibration: cached" in capsys.readouterr().out
    model = onnx.load(folder / "build" / "quantized" / "small.null.int8.onnx")
    weights = {node.name: node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    assert weights["second"] == "second.weight"
    assert weights["first"] != "first.weight"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--target", "onnx"], 2, "--target: expected a runtime"),
        (["--method", "kl"], 2, "--method: expected one of auto, min_max, moving_average, percentile, entropy"),
        (["--precision", "int4"], 2, "--precision: expected one of int8, auto; got int4"),
        (["--mean", "a,b"], 2, "--mean: expected numbers, one a channel, for example 0.485,0.456,0.406; got a,b"),
        (["--mean", "0.1,0.2"], 2, "--mean: expected 1 value or 3, one a channel; got 2"),
        (["--std", "0"], 2, "--std: expected numbers above 0; got 0"),
        (["--channels", "bgrx"], 2, '--channels: expected one of rgb, bgr; got bgrx (did you mean "bgr"?)'),
        (["--pixels", "255"], 2, "--pixels: expected one of 0..1, 0..255; got 255"),
        (["--layout", "nhwc"], 2, "expected an input of 1 or 3 channels, read as nhwc"),
        (
            ["--shape", "img=1x3x8x8"],
            2,
            '--shape: expected an input of the model: image; got img (did you mean "image"?)',
        ),
        (["--shape", "image=1x3x9x9"], 1, "shape of 'image': expected 1x3x8x8; got 1x3x9x9"),
        (
            ["--float", "secnd"],
            2,
            "--float: expected a layer that is quantized, or the beginning of its name; got secnd",
        ),
        (["--out", "small.onnx"], 2, "--out: expected another file than the float model; got small.onnx"),
        (["--data", "nowhere"], 1, "nowhere: expected a folder of images or arrays; got nothing there; check --data"),
    ],
)
def test_wrong_usage_says_what_is_valid(
    folder: Path, arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["quantize", "small.onnx", "--data", "images", "--target", "null"]
    assert run([*command, *arguments]) == code
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1


def no_layer(model: onnx.ModelProto) -> None:
    """Leave nothing but a Relu."""
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Relu", ["image"], ["logits"], name="relu"))
    model.graph.output[0].type.tensor_type.shape.CopyFrom(model.graph.input[0].type.tensor_type.shape)
    del model.graph.initializer[:]


def quantized(model: onnx.ModelProto) -> None:
    """Put a QuantizeLinear in."""
    scale = onnx.numpy_helper.from_array(np.float32(0.1), "scale")
    zero = onnx.numpy_helper.from_array(np.uint8(0), "zero")
    model.graph.initializer.extend([scale, zero])
    model.graph.node[0].input[0] = "image.back"
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["image.codes", "scale", "zero"], ["image.back"]))
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["image.codes"]))


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (no_layer, 2, "expected at least one convolution or matrix product in float32"),
        (quantized, 2, "expected a float model; got one with integer operators already"),
    ],
)
def test_a_model_that_cannot_be_quantized_says_why(
    folder: Path, change, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = two_convolutions()
    change(model)
    onnx.save(model, folder / "odd.onnx")
    assert run(["quantize", "odd.onnx", "--data", "images", "--target", "null", "--mean", "0"]) == code
    assert words in capsys.readouterr().err


def test_images_that_are_all_alike_are_doubted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (folder / "images").iterdir():
        path.unlink()
    Image.new("RGB", (8, 8), (0, 0, 0)).save(folder / "images" / "black.png")
    command = ["quantize", "small.onnx", "--data", "images", "--target", "null", "--mean", "0", *QUICK]
    assert run(command) == 0
    shown = capsys.readouterr().out
    assert "one sample to calibrate on" in shown
    assert "the same value everywhere in image" in shown


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("yolox_nano", ["--pixels", "0..255", "--channels", "bgr"]),
        ("ultraface_slim_320_simplified", ["--mean", "0.498", "--std", "0.502"]),
        ("fastestdet", ["--channels", "bgr"]),
    ],
)
def test_real_detectors_become_int8(
    shared_data: Path, tmp_path: Path, name: str, pixels: list[str], runtime: str
) -> None:
    import zipfile

    with zipfile.ZipFile(shared_data / "imagenet_sample" / "imagenet_sample_100.zip") as archive:
        archive.extractall(tmp_path / "images", archive.namelist()[:24])
    model = str(shared_data / "onnx_models" / f"{name}.onnx")
    command = ["quantize", model, "--data", str(tmp_path / "images"), "--target", runtime, *pixels]
    assert run([*command, "--samples", "8", "--build", str(tmp_path / "build"), *QUICK]) == 0
    found = json.loads(next((tmp_path / "build" / "quantized").glob("*.json")).read_text())
    assert min(output["cosine"] for output in found["folded"]["parity"]) > 0.99999
    assert min(output["cosine"] for output in found["int8"]["parity"]) > 0.8
    assert found["int8"]["size_bytes"] < 0.5 * found["float"]["size_bytes"]
    assert found["fusion"]["int8_operators"] > 0.8 * found["fusion"]["num_operators"]
