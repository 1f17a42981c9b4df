"""A web package in the hands of the tools of app teams: npm, Node, TypeScript, Vite, Chromium."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from micro_nets import Net
from onnx import TensorProto, helper
from sample_release import CARD, LICENCES, compiled_model, passed_report

from benchmarks.headless_chromium import PageError
from benchmarks.web_check import in_chromium
from benchmarks.web_lab import RUNTIMES, TYPESCRIPT, App, Installed, LabError, add_package, missing_tools, new_app
from pipeline.release.golden import make_golden
from pipeline.release.manifest import Interface
from pipeline.release.output_step import output_step
from pipeline.release.payload import Payload, read_payload
from pipeline.release.platforms.web import Web
from pipeline.release.self_test import SelfTest
from pipeline.stages.package_release import Papers, package_release
from targets.processing import Processing
from targets.target import TensorSpec

pytestmark = pytest.mark.slow
SAMPLES, SIZE, CLASSES = 8, 8, 16


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    if missing := missing_tools():
        pytest.skip(f"needs {', '.join(missing)}")
    try:
        return new_app(tmp_path_factory.mktemp("app"), [*RUNTIMES, *TYPESCRIPT, "vite"])
    except LabError as error:
        pytest.skip(f"needs npm's registry: {error}")


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    """Return a release in int8 with an Add, and what ONNX Runtime answers here."""
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, net = tmp_path_factory.mktemp("release"), Net("uint8")
    model = residual(net)
    content = model.SerializeToString()
    interface = Interface(
        inputs=(TensorSpec("image", "float32", (1, 3, SIZE, SIZE)),),
        outputs=(TensorSpec("logits", "float32", (1, CLASSES)),),
        processing=Processing(scale=(1 / 255, 1 / 128, 1 / 100), bias=(0.0, 0.25, 0.5)),
        labels=tuple(f"class {index}" for index in range(CLASSES)),
    )
    images = np.random.default_rng(0).integers(0, 256, (SAMPLES, SIZE, SIZE, 3), np.uint8)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    feeds = interface.processing.preprocess(images)
    logits = np.concatenate([session.run(None, {"image": feed[None]})[0] for feed in feeds])
    papers = Papers(
        interface=interface,
        budget=None,
        card=CARD,
        licences=LICENCES,
        golden=make_golden(interface, images, logits, step=output_step(model), noise=1e-5),
    )
    compiled = compiled_model(folder, content, "onnxruntime")
    release = package_release(folder, compiled, papers, report=passed_report(compiled), report_html=b"page")
    return read_payload(release.path)


@pytest.fixture(scope="module")
def installed(app: App, payload: Payload) -> Installed:
    return add_package(app, Web(name="@example/residual").package(payload, None))


@pytest.fixture
def tampered(installed: Installed, tmp_path: Path) -> Iterator[Installed]:
    shutil.copytree(installed.folder, tmp_path / "kept")
    installed.tamper()
    yield installed
    shutil.rmtree(installed.folder)
    shutil.copytree(tmp_path / "kept", installed.folder)


def residual(net: Net) -> onnx.ModelProto:
    """Return image, convolution, a convolution added to what it reads, and the mean of each of 16 channels."""
    x = net.quantized(net.conv(net.quantized("image", nonnegative=True, scale=3 / 255), 3))
    added = net.quantized(net.add("Add", x, net.quantized(net.conv(x))))
    pooled = net.quantized(net.add("GlobalAveragePool", added), scale=0.001)
    logits = net.add("Flatten", pooled, outputs=["logits"])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, SIZE, SIZE))
    output = helper.make_tensor_value_info(logits, TensorProto.FLOAT, (1, CLASSES))
    graph = helper.make_graph(net.nodes, "residual", [image], [output], net.initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def agrees_with(payload: Payload, report: SelfTest) -> bool:
    difference = report.golden.largest_difference
    return report.golden.labels_equal and difference is not None and difference <= payload.golden.tolerance


def test_npm_installs_the_package_and_node_gives_the_golden_answers(installed: Installed, payload: Payload) -> None:
    report = installed.self_test(runs=20)
    assert agrees_with(payload, report)
    assert report.runtime_version.startswith("onnxruntime-node ")
    assert report.blocks_ns[0].size == 20


@pytest.mark.parametrize("page", [lambda made: made.page, Installed.bundle], ids=["own page", "page built by Vite"])
def test_chromium_gives_the_golden_answers(
    installed: Installed, payload: Payload, page: Callable[[Installed], str], tmp_path: Path
) -> None:
    report = in_chromium(installed.app.folder, page(installed), tmp_path / "page.png")
    assert agrees_with(payload, report)
    assert report.runtime_version.startswith("onnxruntime-web ")
    assert report.blocks_ns[0].min() > 0, "a virtual clock would not have moved"
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_compiler_takes_the_declarations_and_refuses_what_is_no_image_or_class(installed: Installed) -> None:
    installed.check_types()


def test_changed_model_is_refused_in_node_and_in_chromium(tampered: Installed) -> None:
    with pytest.raises(LabError, match=r"model\.onnx: expected sha256 \w{64}; got \w{64}; it was changed"):
        tampered.self_test()
    with pytest.raises(PageError, match=r"model\.onnx: expected sha256 \w{64}; got \w{64}; it was changed"):
        in_chromium(tampered.app.folder, tampered.page)
