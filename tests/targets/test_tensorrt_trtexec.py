"""trtexec: command lines by version, real outputs of it, and a program that stands in for it."""

import gzip
from pathlib import Path

import pytest

from targets.errors import ModelRefused
from targets.tensorrt_build import BuildPlan
from targets.tensorrt_trtexec import (
    BANNER,
    build_command,
    build_engine,
    find_error,
    inspect_engine,
    parse_version,
    read_version,
)

PLAN = BuildPlan("fp32", "GPU", 0, 64, None)
PROGRAM = Path("trtexec")
COMMON = {"--onnx=model.onnx", "--saveEngine=engine", "--profilingVerbosity=detailed", "--noTF32"}

STAND_IN = """#!/bin/sh
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v{number}] # $*"
for word in "$@"; do case $word in
  --saveEngine=*) cat model.onnx > "${{word#*=}}" ;;
  --exportLayerInfo=*) echo '{{"Layers": ["conv"]}}' > "${{word#*=}}" ;;
  --exportProfile=*) echo '[{{"count": 3}}, {{"name": "conv", "averageMs": 0.5}}]' > "${{word#*=}}" ;;
  esac; done
{end}
"""


def stand_in(folder: Path, end: str = "exit 0", number: int = 8502) -> Path:
    path = folder / f"trtexec{number}"
    path.write_text(STAND_IN.format(number=number, end=end))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("version", "precision", "has_codes", "flags"),
    [
        ("8.5.2", "fp32", True, {"--buildOnly", "--int8"}),
        ("8.6.2", "fp16", True, {"--skipInference", "--int8", "--fp16"}),
        ("10.3.0", "fp16", True, {"--skipInference", "--stronglyTyped"}),
        ("11.4.0", "fp16", True, {"--skipInference"}),
    ],
)
def test_flags_follow_the_version(version: str, precision: str, has_codes: bool, flags: set[str]) -> None:
    plan = BuildPlan(precision, "GPU", 0, 64, None)
    program, *given = build_command(PROGRAM, version, plan, has_codes=has_codes, timing_cache=None)
    assert program == "trtexec"
    assert set(given) == COMMON | flags


def test_a_dla_memory_and_timings_are_asked_for() -> None:
    plan = BuildPlan("fp16", "DLA", 1, 64, 256)
    given = build_command(PROGRAM, "10.3.0", plan, has_codes=False, timing_cache=Path("/t"))
    assert {"--useDLACore=1", "--allowGPUFallback", "--fp16"} <= set(given)
    assert {"--memPoolSize=workspace:256", "--timingCacheFile=/t"} <= set(given)
    assert "--stronglyTyped" not in given


@pytest.mark.parametrize(
    ("number", "version"),
    [(8502, "8.5.2"), (8602, "8.6.2"), (100300, "10.3.0"), (101601, "10.16.1"), (110401, "11.4.1")],
)
def test_the_version_is_in_the_banner_as_a_number(number: int, version: str, tmp_path: Path) -> None:
    assert parse_version(number) == version
    assert read_version(stand_in(tmp_path, number=number)) == version


def test_real_outputs_name_their_version(shared_data: Path) -> None:
    folder = shared_data / "logs" / "trtexec" / "stdout"
    text = gzip.decompress((folder / "trt10.16_cookbook_result-02_verbose_build.log.gz").read_bytes()).decode()
    banner = BANNER.search(text)
    assert banner is not None
    assert parse_version(int(banner.group(1))) == "10.16.1"


def test_an_engine_is_built_and_its_layers_are_read(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"onnx")
    program = stand_in(tmp_path)
    content = build_engine(program, tmp_path / "m.onnx", PLAN, None)
    assert content == b"onnx"
    assert [(layer.name, layer.time_ms) for layer in inspect_engine(program, content)] == [("conv", 0.5)]


def test_the_first_error_is_the_reason(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"onnx")
    # As trtexec 10 writes it.
    end = 'echo "[07/07/2026-02:10:45] [E] [TRT] ModelImporter.cpp: Plugin not found"; echo "[E] Failed"; exit 1'
    with pytest.raises(
        ModelRefused, match=r"tensorrt 8\.5\.2 refuses the model: ModelImporter\.cpp: Plugin not found$"
    ):
        build_engine(stand_in(tmp_path, end), tmp_path / "m.onnx", PLAN, None)
    assert find_error("", 3) == "trtexec ended with exit code 3 and no error"
