"""Logs of real runs: each is read, or refused with a reason. Figures were read off the files by eye or by `jq`."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from targets.errors import LogRefused
from targets.logs.jetson_release import JetsonRelease
from targets.logs.read import read_log
from targets.logs.tegrastats import TegrastatsLine
from targets.logs.tool_log import ToolLog
from targets.logs.trtexec import name_version, parse_trtexec
from targets.logs.trtexec_files import parse_layer_info, parse_profile, parse_times

REFUSED = {
    "ov2026_fail_nodevice.stdout.txt": "libOpenCL.so.1",
    "ov2026_fail_silero.stdout.txt": "Check 'false' failed",
    "ov2026_fail_usage_rule.stdout.txt": "-nstreams, -nthreads and -pin options are fine tune options",
    "benchmark_average_counters_report.json": "average counters as JSON hold only the first node",
    "metadata.json": "got one with",  # written by TensorRT's engine explorer, not by trtexec
    "build.metadata.json": "got one with",
    "profile.metadata.json": "got one with",
}


@pytest.fixture(scope="session")
def logs(shared_data: Path) -> Path:
    return shared_data / "logs"


def read_one(path: Path) -> ToolLog:
    log = read_log(path)[0]
    assert isinstance(log, ToolLog)
    return log


def test_every_real_log_is_read_or_refused_with_the_reason(logs: Path) -> None:
    files = [path for path in logs.rglob("*") if path.is_file()]
    assert len(files) > 60
    for path in files:
        reason = "exit code" if path.name.endswith(".stderr.txt") else REFUSED.get(path.name)
        if reason is None:
            for log in read_log(path):
                assert isinstance(log, (ToolLog, TegrastatsLine, JetsonRelease))
                is_empty = isinstance(log, ToolLog) and not (log.latency_ms or log.layers or log.samples_ms is not None)
                assert not is_empty or log.settings or log.cautions, path  # type: ignore[union-attr]
        else:
            with pytest.raises(LogRefused) as caught:
                read_log(path)
            assert reason in str(caught.value)
            assert str(path) in str(caught.value)


@pytest.mark.parametrize("run", ["a100_resnet_fp16", "a100_resnet_fp32", "a100_resnet_qat", "rtx3090_tfresnet_fp16"])
def test_trtexecs_own_figures_come_out_of_its_times_by_its_own_rule(logs: Path, run: str) -> None:
    # samples/common/sampleReporting.cpp: percentile p is sample n - 1 - int((1 - p) * n) of the sorted ones.
    folder = logs / "trtexec" / "json" / run
    samples_ms = np.sort(np.asarray(read_one(folder / "timing.json").samples_ms))
    n = samples_ms.size
    p99 = samples_ms[n - 1 - int((1 - 0.99) * n)]
    printed = json.loads((folder / "profile.metadata.json").read_text())["performance_summary"]["Latency"]
    lowest, highest, mean, median, percentile = printed
    assert [samples_ms[0], samples_ms[-1], np.median(samples_ms), p99] == [lowest, highest, median, percentile]
    assert samples_ms.mean() == pytest.approx(mean, rel=3e-5)  # trtexec sums in float


def test_times_of_before_8_5_are_summed_from_their_parts() -> None:
    old = {"startComputeMs": 300.0, "inMs": 0.1, "computeMs": 2.0, "outMs": 0.05, "endToEndMs": 2.4}
    assert parse_times(json.dumps([old])).samples_ms == pytest.approx([2.15])
    with pytest.raises(LogRefused, match="expected an inference behind the warm-up of 200 ms; got 1"):
        parse_times(json.dumps([{**old, "startComputeMs": 100.0}]))
    with pytest.raises(LogRefused, match="expected a number as outMs; got None"):
        parse_times(json.dumps([{name: value for name, value in old.items() if name != "outMs"}]))


def test_an_engines_layers_get_their_times_from_the_profile(logs: Path) -> None:
    folder = logs / "trtexec" / "json" / "a100_resnet_qat"
    profile = (folder / "profile.json").read_text()
    layers = parse_layer_info((folder / "graph.json").read_text(), profile).layers
    assert (layers[0].name, layers[0].time_ms) == ("QuantizeLinear_2", 0.06144)
    assert layers[1].precision == "int8"
    assert sum(layer.time_ms or 0.0 for layer in layers) == pytest.approx(
        sum(layer.time_ms or 0.0 for layer in parse_profile(profile).layers), rel=0.02
    )  # the profile also lists what runs nothing


def test_trtexecs_text_of_three_generations(logs: Path) -> None:
    text = logs / "trtexec" / "stdout"
    old = read_one(text / "adapted_trt7.x_old_format.log")
    assert (old.latency_ms["median"], old.latency_ms["p99"], old.throughput_per_s) == (1.71728, 1.73246, None)
    xavier = read_one(text / "adapted_trt8.4_xavier_agx.log")
    assert (xavier.version, xavier.latency_ms["p99"]) == ("8.4.0", 0.435839)
    assert xavier.parts_ms["GPU Compute Time"]["mean"] == 0.402585
    new = read_one(text / "trt10.16_cookbook_result-01.log")
    assert (new.version, new.latency_ms["p90"], new.throughput_per_s) == ("10.16.1", 0.0450439, 15374.3)
    assert "GPU compute time is unstable, with coefficient of variance = 6.58751%." in new.cautions[0]
    table = read_one(text / "trt10.16_cookbook_result-05.log")
    assert (len(table.layers), table.num_inferences, table.layers[1].time_ms) == (15, 18362, 0.0105)


def test_a_run_of_trtexec_that_failed_gives_its_first_error() -> None:
    mark = "&&&& {} TensorRT.trtexec [TensorRT v8502] # trtexec --onnx=m.onnx"
    error = "[07/07/2026-02:10:45] [E] [TRT] ModelImporter.cpp:779: While parsing node number 3 [Foo]"
    with pytest.raises(LogRefused, match=r"one that failed: .*While parsing node number 3"):
        parse_trtexec("\n".join([mark.format("RUNNING"), error, mark.format("FAILED")]))
    with pytest.raises(LogRefused, match="ends before any figure"):
        parse_trtexec(mark.format("RUNNING"))


def test_versions_are_read_as_tensorrt_writes_them() -> None:
    assert [name_version(digits) for digits in ("8502", "8601", "100300", "101601", "110400")] == [
        "8.5.2",
        "8.6.1",
        "10.3.0",
        "10.16.1",
        "11.4.0",
    ]


def test_benchmark_app_says_the_same_in_its_three_forms(logs: Path) -> None:
    folder = logs / "openvino_benchmark_app"
    text = read_one(folder / "ov2026_fastestdet_sync_counters.stdout.txt")
    report = read_one(folder / "r_ov2026_fastestdet_sync_counters" / "benchmark_report.csv")
    assert text.latency_ms == report.latency_ms == {"median": 2.61, "mean": 4.0, "min": 2.23, "max": 12.47}
    assert (text.num_inferences, report.throughput_per_s) == (50, 245.70)
    counters = read_one(folder / "r_ov2026_fastestdet_sync_counters" / "benchmark_average_counters_report.csv")
    assert sum(layer.time_ms or 0.0 for layer in counters.layers) == pytest.approx(2.977, abs=1e-9)  # its Total row
    assert {layer.precision for layer in counters.layers} >= {"bf16"}
    loaded = read_one(folder / "r_ov2026_resnet_w8a8_detailed_json" / "benchmark_report.json")
    assert any("latency under load" in caution for caution in loaded.cautions)
    yunet = read_one(folder / "r_ov2026_yunet_dynamic" / "benchmark_report.csv")
    assert (yunet.latency_ms["p99"], "median" in yunet.latency_ms) == (8.93, False)


def test_onnxruntimes_files(logs: Path) -> None:
    folder = logs / "onnxruntime"
    plain = read_one(folder / "ort_resnet_w8a8_disable_all.json")
    fused = read_one(folder / "ort_resnet_w8a8_enable_all.json")
    assert len(fused.layers) < len(plain.layers)
    assert any(layer.op_type == "QLinearConv" and layer.precision == "int8" for layer in fused.layers)
    old = read_one(folder / "adapted_perf_test_old_is_sec.txt")
    assert (old.latency_ms["p99"], old.num_inferences) == (pytest.approx(64.2439), 1000)
    few = read_one(folder / "adapted_perf_test_acl_mobilenet.txt")
    assert few.parts_ms == {"session creation": {"mean": pytest.approx(28.3175)}, "first inference": {"mean": 20.0}}
    assert few.cautions == ("8 inferences are too few for high percentiles: those are the largest samples",)


def test_a_board_without_jetpack_packages_has_none(logs: Path) -> None:
    board = read_log(logs / "jetson_release" / "adapted_orin_nx_jetpack_missing.txt")[0]
    assert isinstance(board, JetsonRelease)
    assert (board.l4t, board.jetpack, board.power_mode) == ("36.4.3", None, "MAXN")
    assert board.libraries["TensorRT"] == "10.3.0.30"
    xavier = read_log(logs / "jetson_release" / "adapted_xavier_nx_jtop_libraries.txt")[0]
    assert isinstance(xavier, JetsonRelease)
    assert "OpenCV" not in xavier.libraries


def test_files_that_are_cut_off_or_foreign_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    cases = {
        b'[{"cat": "Session", "name"': "expected whole JSON",
        gzip.compress(b"x" * 999)[:20]: "expected a log; got",
        b"hello": "expected a log of trtexec",
        b"": "expected a log of trtexec",
        b"[]": "expected a log of trtexec",
    }
    for content, reason in cases.items():
        path.write_bytes(content)
        with pytest.raises(LogRefused, match=reason):
            read_log(path)
    with pytest.raises(LogRefused, match="No such file"):
        read_log(tmp_path / "nothing")
