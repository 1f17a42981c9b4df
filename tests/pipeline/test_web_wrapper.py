"""The JavaScript of a web package in Node, on a runtime that gives recorded outputs."""

import json
from pathlib import Path

import numpy as np
import pytest
from android_samples import HEIGHT, LABELS, SAMPLES, WIDTH, Layout, sample_payload
from PIL import Image
from sample_release import compiled_model, package, passed_report
from web_samples import REFUSAL, run_js, unpack

from pipeline.release.golden import golden_array
from pipeline.release.payload import Payload, read_payload
from pipeline.release.platforms.web import Web
from pipeline.release.self_test import SelfTest

SELF_TEST = """
    const ort = recorded(given.logits);
    const model = await load({ ort });
    const report = await model.selfTest({ runs: 5, warmup: 2 });
    return { report, agrees: agrees(report), inferences: ort.fed.length };
"""


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    return sample_payload(tmp_path_factory.mktemp("payload"))


@pytest.fixture
def installed(payload: Payload, tmp_path: Path) -> Path:
    return unpack(Web().package(payload, None), tmp_path)


def golden_of(payload: Payload) -> tuple[np.ndarray, np.ndarray]:
    golden = payload.golden
    return golden_array(golden.inputs, payload.files), golden_array(golden.outputs, payload.files)


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("layout", ["float32_nchw", "uint8_nhwc"])
def test_model_is_fed_bit_for_bit_what_the_chain_fed_it(tmp_path: Path, layout: Layout, batch: int | None) -> None:
    payload = sample_payload(tmp_path / "release", layout, batch)
    images_NHWC, logits_NK = golden_of(payload)
    body = """
        const ort = recorded(given.logits);
        const model = await load({ ort });
        for (const image of given.images) await model.classify(Uint8Array.from(image));
        return ort.fed;
    """
    images = images_NHWC.reshape(SAMPLES, -1).tolist()
    fed = run_js(unpack(Web().package(payload, None), tmp_path), body, images=images, logits=logits_NK.tolist())
    processing = payload.manifest.interface.processing
    assert isinstance(fed, list)
    for tensor, image_HWC in zip(fed, images_NHWC, strict=True):
        expected = processing.preprocess(image_HWC[None])
        assert isinstance(tensor, dict)
        assert (tensor["name"], tensor["type"]) == ("image", str(expected.dtype))
        assert tensor["dims"] == [batch or 1, *expected.shape[1:]]
        first, *rest = np.array(tensor["data"], expected.dtype).reshape(tensor["dims"])
        np.testing.assert_array_equal(first, expected[0])
        assert not np.any(rest)


def test_recorded_outputs_become_the_classes_and_scores_that_the_chain_gives(payload: Payload, installed: Path) -> None:
    body = """
        const model = await load({ ort: recorded(given.logits) });
        const answers = [];
        for (const _ of given.logits) answers.push(await model.classify(new Uint8Array(given.size)));
        return answers;
    """
    images_NHWC, logits_NK = golden_of(payload)
    answers = run_js(installed, body, logits=logits_NK.tolist(), size=images_NHWC[0].size)
    best, scores = payload.manifest.interface.processing.postprocess(logits_NK)
    assert isinstance(answers, list)
    for answer, label, score in zip(answers, best, scores, strict=True):
        assert isinstance(answer, list)
        assert answer[0]["label"] == LABELS[label]
        assert answer[0]["score"] == pytest.approx(score, rel=1e-6)  # float32 there, float64 here
        assert {each["label"] for each in answer} == {*LABELS}
        assert sum(each["score"] for each in answer) == pytest.approx(1)


def test_self_test_holds_golden_answers_and_raw_samples_as_the_gate_reads_them(
    payload: Payload, installed: Path
) -> None:
    found = run_js(installed, SELF_TEST, logits=golden_of(payload)[1].tolist())
    assert isinstance(found, dict)
    report = SelfTest.model_validate_json(json.dumps(found["report"]))
    assert (report.name, report.version, report.platform) == ("digits", "0.1.0", "web")
    assert report.model_sha256 == payload.manifest.files["model.onnx"].sha256
    assert report.runtime_version == "onnxruntime-node 1.2.3, cpu"
    assert (report.scope, [block.size for block in report.blocks_ns]) == ("model", [5])
    assert report.golden.model_dump() == {"samples": SAMPLES, "largest_difference": 0, "labels_equal": True}
    assert (found["agrees"], found["inferences"]) == (True, SAMPLES + 2 + 5)


def test_self_test_times_what_the_budget_is_about(tmp_path: Path) -> None:
    payload = sample_payload(tmp_path / "release", scope="end_to_end")
    logits = golden_of(payload)[1].tolist()
    found = run_js(unpack(Web().package(payload, None), tmp_path), SELF_TEST, logits=logits)
    assert isinstance(found, dict)
    assert found["report"]["scope"] == "end_to_end"


def test_outputs_beyond_the_tolerance_and_outputs_that_are_none_do_not_agree(payload: Payload, installed: Path) -> None:
    logits = golden_of(payload)[1]
    off = logits.astype(np.float64)
    off[1, 2] += 2 * payload.golden.tolerance
    found = run_js(installed, SELF_TEST, logits=off.tolist())
    assert isinstance(found, dict)
    assert found["report"]["golden"]["largest_difference"] == pytest.approx(2 * payload.golden.tolerance, rel=1e-3)
    assert found["agrees"] is False
    broken: list[list[float | str]] = logits.tolist()
    broken[0][0] = "NaN"
    found = run_js(installed, SELF_TEST, logits=broken)
    assert isinstance(found, dict)
    assert found["report"]["golden"] == {"samples": SAMPLES, "largest_difference": None, "labels_equal": False}
    assert found["agrees"] is False


def test_changed_model_is_refused_before_the_runtime_sees_it(installed: Path) -> None:
    model = installed / "release" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    refusal = f"const ort = recorded([[0, 0, 0]]); const said = await (async () => {{ {REFUSAL} }})();"
    said, loaded = run_js(installed, f"{refusal} return [said, ort.loaded.length]")  # type: ignore[misc]
    assert str(said).startswith("ReleaseError: digits 0.1.0: model.onnx: expected sha256 ")
    assert str(said).endswith("it was changed: install the package again, and verify it")
    assert loaded == 0


def test_changed_golden_answers_are_refused(installed: Path) -> None:
    (installed / "release" / "golden" / "logits.bin").write_bytes(bytes(4 * SAMPLES * len(LABELS)))
    body = """
        const model = await load({ ort: recorded([[0, 0, 0]]) });
        return await model.selfTest().catch((error) => error.message);
    """
    assert "golden/logits.bin: expected sha256" in str(run_js(installed, body))


def test_missing_runtime_and_wrong_pixels_are_told_with_what_to_do(installed: Path) -> None:
    assert "npm install onnxruntime-node, or pass another to load({ ort })" in str(
        run_js(installed, f"const ort = undefined; {REFUSAL}")
    )
    body = """
        const model = await load({ ort: recorded([[0, 0, 0]]) });
        return await model.classify(new Uint8Array(7)).catch((error) => error.message);
    """
    assert "pixels: expected a Uint8Array of 5 x 4 x 3 bytes; got 7 bytes" in str(run_js(installed, body))


def test_pixels_of_a_canvas_lose_their_alpha(installed: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    body = """
        const data = Uint8ClampedArray.from(given.rgba);
        return Array.from(pixelsOf({ data, width: given.width, height: given.height }));
    """
    pixels = run_js(installed, body, rgba=rgba.ravel().tolist(), width=WIDTH, height=HEIGHT)
    assert pixels == rgba[:, :, :3].ravel().tolist()
    wrong = "try { pixelsOf({ data: [], width: 5, height: 5 }) } catch (error) { return error.message }"
    assert "image: expected 4 x 5 pixels; got 5 x 5; draw it in that size first" in str(run_js(installed, wrong))


def test_colours_become_the_grey_that_pillow_makes_of_them_for_a_model_of_one_channel(tmp_path: Path) -> None:
    model = compiled_model(tmp_path)
    release = read_payload(package(tmp_path, model, passed_report(model)).path)
    rgba = np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8)
    body = """
        const data = Uint8ClampedArray.from(given.rgba);
        return Array.from(pixelsOf({ data, width: 8, height: 8 }));
    """
    grey = run_js(unpack(Web().package(release, None), tmp_path), body, rgba=rgba.ravel().tolist())
    assert grey == list(Image.fromarray(rgba[:, :, :3]).convert("L").tobytes())
