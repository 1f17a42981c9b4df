"""The command line: what each failure says, and with which exit code."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pipeline.cli import run
from pipeline.models import build_model
from pipeline.recipe import load_recipe
from pipeline.verbs.profile import parse_shape

EXAMPLE = "docs/examples/own_model/recipe.toml"
VERBS = [
    "deploy",
    "plan",
    "profile",
    "quantize",
    "show",
    "verify",
    "methods",
    "init",
    "store show",
    "store prune",
    "store clear",
]


def edgeproof(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, text=True, stderr=subprocess.PIPE, check=False, **options)  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def recipe_folder(tmp_path: Path) -> Path:
    """What `edgeproof init` writes, with a few images of two classes."""
    assert run(["init", str(tmp_path / "cats")]) == 0
    for label in ("cat", "dog"):
        folder = tmp_path / "cats" / "images" / label
        folder.mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (40, 36), (20 * number, 128, 255 - 20 * number)).save(folder / f"{number}.png")
    return tmp_path / "cats"


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """y = x + 1 on float32[1, 4]."""
    one = numpy_helper.from_array(np.ones(4, np.float32), "one")
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "one"], ["y"])], "tiny", shape[:1], shape[1:], [one])
    path = tmp_path / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_help_imports_neither_torch_nor_numpy_nor_a_runtime() -> None:
    heavy = {"torch", "numpy", "onnx", "onnxruntime", "openvino", "sklearn", "pydantic"}
    code = f"import sys; from pipeline.cli import run; run(['--help']); print({heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_has_an_example_and_the_exit_codes(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*verb.split(), "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"Example: edgeproof {verb}" in text
    assert "3 a budget failed" in text
    assert "130 interrupted" in text


def test_an_unknown_verb_is_wrong_usage_and_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["depoly"]) == 2
    assert "deploy" in capsys.readouterr().err


def test_an_error_is_one_message_and_a_traceback_only_with_debug(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "no.toml")
    assert run(["deploy", missing]) == 2
    assert capsys.readouterr().err.startswith(
        f"edgeproof: {missing}: expected a recipe (a TOML file); got nothing there"
    )
    assert run(["deploy", "--debug", missing]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_unknown_deployment_lists_those_there_are(recipe_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(recipe_folder / "recipe.toml"), "--target", "gpu"]) == 2
    assert "--target: expected a deployment of cats: cpu; got gpu" in capsys.readouterr().err


def test_init_writes_a_recipe_whose_model_and_data_really_load(recipe_folder: Path) -> None:
    recipe = load_recipe(recipe_folder / "recipe.toml")
    dataset = recipe.task.load()
    student = build_model(recipe.student.model, channels=3, num_classes=2)
    assert dataset.classes == ("cat", "dog")
    assert dataset.test.images.shape == (4, 32, 32, 3)
    convolutions, batch_norms, linear = 9 * (3 * 16 + 16 * 32 + 32 * 64), 2 * (16 + 32 + 64), 64 * 2 + 2
    assert sum(parameter.numel() for parameter in student.parameters()) == convolutions + batch_norms + linear


@pytest.mark.slow
def test_what_init_writes_deploys_to_a_release_that_verifies(recipe_folder: Path) -> None:
    build = recipe_folder / "build"
    short = [f"{part}.training.epochs=1" for part in ("teacher", "distillation", "quantization")]
    small = [f"{part}.training.batch_size=4" for part in ("teacher", "distillation", "quantization")]
    lax = ["deployments.cpu.budget={size={max_bytes=100_000}}", "deployments.cpu.profile={min_samples=10,processes=1}"]
    sets = [f"--set={value}" for value in (*short, *small, *lax)]
    assert run(["deploy", str(recipe_folder / "recipe.toml"), "--build", str(build), *sets]) == 0
    assert run(["verify", str(build / "cats" / "cpu" / "release" / "cats-0.1.0-cpu.zip")]) == 0
    assert run(["show", str(build / "cats" / "cpu")]) == 0


def test_init_overwrites_nothing(recipe_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recipe_folder / "recipe.toml").unlink()
    before = (recipe_folder / "my_models.py").stat().st_mtime_ns
    assert run(["init", str(recipe_folder)]) == 2
    assert "my_models.py is there already; nothing was written" in capsys.readouterr().err
    assert not (recipe_folder / "recipe.toml").exists()
    assert (recipe_folder / "my_models.py").stat().st_mtime_ns == before


def test_ctrl_c_ends_with_130_and_says_what_is_kept(tmp_path: Path) -> None:
    fifo = tmp_path / "recipe.toml"
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "pipeline", "deploy", str(fifo)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    write_end = wait_for_reader(fifo, process)
    time.sleep(0.5)  # it has opened the file, and waits for its first byte
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    os.close(write_end)
    assert process.returncode == 130
    assert errors.startswith("edgeproof: interrupted. Finished stages")
    assert len(errors.splitlines()) == 1


def wait_for_reader(fifo: Path, process: subprocess.Popen[str]) -> int:
    """Return the write end of `fifo` as soon as `process` reads it; closing it would end what is read."""
    while process.poll() is None:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # ENXIO: nobody reads yet
            time.sleep(0.05)
    raise AssertionError(f"ended before it read the recipe: {process.communicate()}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_said_in_words(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = edgeproof("store", "show", "--build", str(tmp_path), stdout=full)
    assert done.returncode == 1
    assert "the disk is full: free some space" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_went_away_is_no_news(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = edgeproof("store", "show", "--build", str(tmp_path), stdout=write_end)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, "")


def test_profile_prints_figures_and_judges_a_budget(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["profile", str(tiny_model), "--target", "null", "--max-seconds", "1"]
    assert run(arguments) == 0
    assert "95 % of the p99" in capsys.readouterr().out
    median = [*arguments, "--percentile", "50"]  # which few samples tell, however busy the machine
    assert run([*median, "--max-ms", "1000"]) == 0
    assert run([*median, "--max-ms", "0.000001"]) == 3
    assert "FAIL" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--target", "nul"],
            'expected a runtime: onnxruntime, openvino, tensorrt, null; got nul (did you mean "null"?)',
        ),
        (["--target", "null", "--max-ms", "-1"], "--max-ms: expected a number greater than 0; got -1.0"),
        (["--target", "null", "--shape", "x=1y4"], "--shape x=1y4: expected NAME=SIZES, for example input=1x3x32x32"),
        (["--target", "null", "--precision", "int8"], "--precision: expected one of fp32, bf16, fp16; got int8"),
    ],
)
def test_wrong_usage_of_profile_says_what_is_valid(
    tiny_model: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["profile", str(tiny_model), *arguments]) == 2
    assert words in capsys.readouterr().err


def test_shapes_are_read_with_x_and_with_commas() -> None:
    assert parse_shape("images:0=1x3x32x32") == ("images:0", (1, 3, 32, 32))
    assert parse_shape("a=b=1,2") == ("a=b", (1, 2))


def test_what_is_no_report_and_no_release_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text('{"verdict": "pass"}')
    assert run(["show", str(tmp_path)]) == 1
    assert "expected a report of this version" in capsys.readouterr().err
    assert run(["show", str(tmp_path / "nowhere.json")]) == 2
    assert run(["verify", str(tmp_path / "report.json")]) == 1


def test_an_error_in_a_file_of_the_users_names_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text("def load():\n    return 1 / 0\n")
    data = f'task.data={{ kind = "{tmp_path}/mine.py:load" }}'
    code = run(["deploy", EXAMPLE, "--target", "reference", "--set", data, "--build", str(tmp_path / "build")])
    message = capsys.readouterr().err
    assert code == 1
    assert f"{tmp_path}/mine.py:2: expected no error here; got ZeroDivisionError" in message
    assert "Traceback" not in message
