import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app

LINE = "RAM 1698/7854MB (lfb 1044x4MB) CPU [0%@1303,off] GPU@39.5C VDD_IN {}/1950 VDD_CPU 235/233"


@pytest.fixture
def monitor(tmp_path: Path) -> Path:
    path = tmp_path / "board.txt"
    path.write_text("\n".join(LINE.format(power) for power in (1900, 2100)))
    return path


def test_a_monitors_lines_are_summed_up(monitor: Path) -> None:
    done = CliRunner().invoke(app, ["read", str(monitor)])
    assert done.exit_code == 0
    assert "tegrastats, 2 lines" in done.output
    assert "power, mean: VDD_IN 2000 mW, VDD_CPU 235 mW" in done.output
    assert "temperature, highest: GPU 39.5 C" in done.output


def test_a_refused_log_does_not_hide_the_others(monitor: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.txt"
    foreign.write_text("hello")
    done = CliRunner().invoke(app, ["read", str(foreign), str(monitor), "--json"])
    assert done.exit_code == 1
    refused, read = json.loads(done.stdout)
    assert "expected a log of trtexec" in refused["refused"]
    assert read["logs"][1]["power_mw"] == {"VDD_IN": 2100.0, "VDD_CPU": 235.0}


def test_times_get_this_projects_percentiles(tmp_path: Path) -> None:
    times = [
        {"startComputeMs": 300.0 + i, "h2dMs": 0.0, "computeMs": float(i), "d2hMs": 0.0, "latencyMs": float(i)}
        for i in range(1, 101)
    ]
    path = tmp_path / "times.json"
    path.write_text(json.dumps([{"startEnqMs": 0.0, **each} for each in times]))
    assert "latency of 100 inferences: p50 50.0 ms, p90 90.0 ms, p99 99.0 ms" in CliRunner().invoke(
        app, ["read", str(path)]
    ).output.replace("\n", " ")
