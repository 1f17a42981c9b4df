"""The whole chain on the working fake target: one short deploy that many claims look at."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pipeline.artifacts import PrecisionChoice, TriedPrecision
from pipeline.chain import deploy, earn_place, plan, probe, train_models
from pipeline.errors import RecipeError
from pipeline.measuring.verdict import Verdict
from pipeline.recipe import Recipe, load_recipe
from pipeline.release.golden import golden_array
from pipeline.release.payload import read_payload
from pipeline.release.verify import verify_release
from pipeline.report.report import Report, read_report
from pipeline.run import open_run
from targets.devices.inventory import LOCAL_ALONE
from targets.errors import DeviceError

RECIPE = """
name = "tiny"
version = "1.2.3"
license = "Apache-2.0"

[task]
kind = "classification"
data = { kind = "digits" }
normalization = { mean = [0.3], std = [0.37] }

[teacher]
model = { kind = "resnet", depth = 8, width = 8 }
training = { epochs = 2, precision = "32-true" }

[student]
model = { kind = "resnet", depth = 8, width = 4 }

[distillation]
training = { epochs = 2, precision = "32-true" }
losses = [{ kind = "cross_entropy" }, { kind = "kd" }]

[quantization]
training = { epochs = 1, learning_rate = 0.001, precision = "32-true" }
losses = [{ kind = "kd", temperature = 1.0 }]
calibration = { samples = 64 }

[[deployments]]
name = "fake"
target = { kind = "null" }
budget = { latency = { max_ms = 1000.0, percentile = 50 }, parity = { min_agreement = 0.9 } }
profile = { min_samples = 256, processes = 1 }

[[deployments]]
name = "far"
target = { kind = "tensorrt" }
device = "nowhere"
budget = { latency = { max_ms = 1.0 } }
"""
MISSED = "deployments.fake.budget.latency.max_ms=0.0001"
TRAINED = {"train_teacher", "distill_student", "train_quantized"}


@dataclass(frozen=True)
class Bench:
    """A recipe on disk and the build folder of its deploys."""

    recipe: Path
    build: Path

    def load(self, *overrides: str) -> Recipe:
        return load_recipe(self.recipe, overrides)

    def deploy(self, *overrides: str, build: Path | None = None, train_anyway: bool = False) -> Report:
        recipe = self.load(*overrides)
        console = Console(quiet=True)
        folder = build or self.build
        return deploy(recipe, recipe.deployments[0], build=folder, train_anyway=train_anyway, console=console)

    def release(self, build: Path | None = None) -> Path:
        return (build or self.build) / "tiny" / "fake" / "release" / "tiny-1.2.3-fake.zip"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("chain")
    (folder / "tiny.toml").write_text(RECIPE)
    return Bench(folder / "tiny.toml", folder / "build")


@pytest.fixture(scope="module")
def first(bench: Bench) -> Report:
    return bench.deploy()


def test_every_stage_runs_and_the_gate_opens(first: Report) -> None:
    names = [stage.name for stage in first.stages]
    assert names[-4:] == ["check_parity", "measure_accuracy", "profile_latency", "record_answers"]
    assert names.index("train_teacher") < names.index("distill_student") < names.index("check_parity")
    assert first.verdict is Verdict.PASS


def test_a_passed_deployment_leaves_a_release_that_verifies_and_its_report(first: Report, bench: Bench) -> None:
    assert verify_release(bench.release()).ok
    assert read_report((bench.build / "tiny" / "fake" / "report.json").read_text()) == first
    assert "http" not in (bench.build / "tiny" / "fake" / "report.html").read_text()


def test_a_release_has_test_images_as_bytes_and_what_the_model_answers_to_them(first: Report, bench: Bench) -> None:
    payload = read_payload(bench.release())
    golden, interface = payload.golden, payload.manifest.interface
    images_NHWC = golden_array(golden.inputs, payload.files)
    np.testing.assert_array_equal(images_NHWC, bench.load().task.load().test.images[:8])
    inputs = interface.processing.preprocess(images_NHWC)
    session = pytest.importorskip("onnxruntime").InferenceSession(payload.model)
    answered = np.concatenate([session.run(None, {"image": each[None]})[0] for each in inputs])
    np.testing.assert_allclose(golden_array(golden.outputs, payload.files), answered, atol=golden.tolerance)
    assert golden.labels == tuple(answered.argmax(axis=1))


def test_a_release_is_installed_on_its_device_after_it_answered_there_as_measured(first: Report, bench: Bench) -> None:
    installed = json.loads((bench.build / "tiny" / "fake" / "installed.json").read_text())
    assert installed["smoke"]["is_equal"]
    current = Path(installed["path"])
    assert current == (bench.build / "releases" / "tiny-fake" / "current").absolute()
    assert hashlib.sha256((current / "model.onnx").read_bytes()).hexdigest() == first.artifact.sha256


def test_the_first_answer_comes_before_training(first: Report) -> None:
    names = [stage.name for stage in first.stages]
    assert names.index("profile_latency") < names.index("train_teacher")


def test_the_device_agrees_with_the_trained_model(first: Report) -> None:
    assert first.parity is not None
    assert first.accuracy is not None
    assert first.parity.onnx_vs_device.top1_agreement == 1.0
    assert first.accuracy.num_samples == 360
    assert first.accuracy.on_device == pytest.approx(first.accuracy.quantized, abs=2 / 360)  # codes can flip by one


def test_a_second_deploy_computes_nothing_and_measures_anew(first: Report, bench: Bench) -> None:
    again = bench.deploy()
    fresh = {stage.name for stage in again.stages if not stage.cached}
    assert fresh == {"check_parity", "measure_accuracy", "profile_latency", "record_answers"}
    assert again.artifact == first.artifact


def test_a_budget_that_the_untrained_student_misses_ends_the_run(bench: Bench, tmp_path: Path) -> None:
    report = bench.deploy(MISSED, build=tmp_path)
    assert report.verdict is Verdict.FAIL
    assert report.untrained
    assert TRAINED.isdisjoint(stage.name for stage in report.stages)
    assert not bench.release(tmp_path).parent.exists()


@pytest.mark.slow
def test_train_anyway_goes_on_and_still_releases_nothing(first: Report, bench: Bench) -> None:
    report = bench.deploy(MISSED, train_anyway=True)
    assert report.verdict is Verdict.FAIL
    assert not report.untrained
    assert not bench.release().exists()
    assert (bench.build / "tiny" / "fake" / "earlier_release" / bench.release().name).exists()


def test_a_float_deployment_shares_the_float_student(first: Report, bench: Bench) -> None:
    report = bench.deploy('deployments.fake.precision="fp32"')
    assert "train_quantized" not in {stage.name for stage in report.stages}
    assert {stage.name for stage in report.stages if stage.cached} >= TRAINED - {"train_quantized"}


@pytest.mark.slow
def test_dynamic_activations_need_no_quantized_training(first: Report, bench: Bench) -> None:
    report = bench.deploy('deployments.fake.precision="int8_dynamic"')
    assert {stage.name for stage in report.stages if stage.cached} >= TRAINED - {"train_quantized"}
    assert "train_quantized" not in {stage.name for stage in report.stages}
    assert report.precision == "int8_dynamic"
    assert {"DynamicQuantizeLinear", "MatMulInteger"} <= {each.op_type for each in report.executed.operators}


@pytest.fixture(scope="module")
def auto(first: Report, bench: Bench) -> Report:
    return bench.deploy('deployments.fake.precision="auto"', "deployments.fake.budget.accuracy.max_drop_student=0.2")


@pytest.mark.slow
def test_auto_ships_what_is_fastest_and_the_report_says_why(auto: Report) -> None:
    assert auto.verdict is Verdict.PASS
    assert auto.precision == "fp32"  # as written, integers are emulated: everything but fp32 is slower
    assert auto.search is not None
    assert auto.search.chosen == "fp32"
    assert {"fp32", "int8", "int8_dynamic"} <= {tried.plan for tried in auto.search.tried}
    assert auto.search.sensitivity


@pytest.mark.slow
def test_auto_trains_no_int8_that_does_not_ship(auto: Report) -> None:
    assert "train_quantized" not in {stage.name for stage in auto.stages}
    assert {stage.name for stage in auto.stages} >= {"choose_precision", "measure_sensitivity"}


def test_a_plan_of_auto_waits_for_the_student(bench: Bench, tmp_path: Path) -> None:
    recipe = bench.load('deployments.fake.precision="auto"')
    stages = {stage.name: stage for stage in plan(recipe, recipe.deployments[0], build=tmp_path)}
    assert stages["choose_precision"].state == stages["train_quantized"].state == "waits"


@pytest.mark.parametrize(("float_holds", "shipped"), [(False, "int8"), (True, "fp32")])
def test_int8_that_is_slower_ships_only_where_float_does_not_hold(
    first: Report, bench: Bench, tmp_path: Path, float_holds: bool, shipped: str
) -> None:
    recipe = bench.load()
    site = probe(recipe.deployments[0], tmp_path, LOCAL_ALONE)
    run = open_run(Console(quiet=True), bench.build)
    models = train_models(recipe, recipe.deployments[0], site, run)
    holds = TriedPrecision("fp32", (), None, 1.0, 1.0, None, 1.0, 0.0, -200.0, 1, holds=float_holds)
    choice = PrecisionChoice("int8", (), None, (), "it was said", (holds,), (), (), has_labels=True)
    earned = earn_place(recipe, replace(models, settled=replace(models.settled, choice=choice)), site, run)
    assert earned.settled.deployment.precision == shipped
    assert (earned.shipped is earned.student) == (shipped == "fp32")


def test_a_precision_that_the_runtime_lacks_ends_the_run_before_training(bench: Bench, tmp_path: Path) -> None:
    recipe = bench.load('deployments.fake.precision="bf16"')
    with pytest.raises(
        RecipeError, match=r"deployments.fake.precision: expected one of auto, int8, int8_dynamic, fp32,"
    ):
        deploy(recipe, recipe.deployments[0], build=tmp_path, console=Console(quiet=True))
    assert not list((tmp_path / "store").rglob("*.safetensors"))


def test_a_device_that_is_not_there_ends_the_run_before_training(bench: Bench, tmp_path: Path) -> None:
    recipe = bench.load()
    with pytest.raises(DeviceError, match="nowhere"):
        deploy(recipe, recipe.deployments[1], build=tmp_path, console=Console(quiet=True))
    entries = tmp_path / "store" / "entries"
    assert not TRAINED & {path.name for path in (entries.iterdir() if entries.is_dir() else ())}


def test_an_export_is_checked_before_the_device_is_reached_where_that_needs_none(bench: Bench, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx: pip install 'edgeproof[tensorrt-check]'")
    recipe = bench.load()
    with pytest.raises(DeviceError, match="nowhere"):
        deploy(recipe, recipe.deployments[1], build=tmp_path, console=Console(quiet=True))
    assert (tmp_path / "store" / "entries" / "check_accepted").is_dir()


def test_a_plan_says_what_is_stale_and_why(first: Report, bench: Bench) -> None:
    recipe = bench.load("distillation.training.epochs=3")
    stages = {stage.name: stage for stage in plan(recipe, recipe.deployments[0], build=bench.build)}
    assert stages["train_teacher"].state == "cached"
    assert stages["distill_student"].reason == "training.epochs: 2 -> 3"
    assert stages["train_quantized"].state == "waits"
    assert stages["profile_latency"].state == "measure"
