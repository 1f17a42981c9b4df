"""What the report says of sensors, energy, layers and slow spots, for people and machines."""

import json
from dataclasses import replace

import numpy as np

from pipeline.artifacts import LatencyProfile, SlowSpot
from pipeline.report.build import Evidence, Subject, build_report
from pipeline.report.page import report_html
from pipeline.report.report import Report, read_report, report_json
from targets.runner.energy import EnergyRun
from targets.runner.sensors import Channel, Trace

SUBJECT = Subject(recipe="r", version="1", deployment="d", target="null", device="local", precision="int8")
SPOT = SlowSpot("reformat", "Reorder: <a>", "keep one layout", 3, 0.004, 0.04)


def power(mw: float) -> Trace:
    return Trace(tuple(0.1 * i for i in range(31)), (Channel("power", "VDD_IN", (mw,) * 31),))


def report_of(evidence: Evidence, profile: LatencyProfile) -> Report:
    assert evidence.fusion is not None
    shown = replace(evidence, latency=profile, fusion=replace(evidence.fusion, slow_spots=(SPOT,)))
    return build_report(SUBJECT, shown, [], stages=[], created_at="2026-01-02T03:04:05+00:00")


def test_energy_and_sensors_stand_in_page_and_json(evidence: Evidence, profile: LatencyProfile) -> None:
    trace = Trace(
        (0.0, 1.0),
        (Channel("temperature", "cpu-thermal", (61.0, 74.5), 99.0),),
        settings={"power_mode": "0: 15W"},
        unavailable={"clock": "no cpufreq"},
    )
    run = EnergyRun("INA3221 (hwmon)", power(5000), power(9000), 600)
    report = report_of(evidence, replace(profile, traces=(trace,), energy=(run,)))
    page = report_html(report, None)
    assert "20.0 mJ an inference above idle" in page  # 4 W over 3 s by 600
    assert "61 to 74.5 of 99 C" in page
    assert "unavailable: no cpufreq" in page
    assert read_report(report_json(report)) == report
    figures = json.loads(report_json(report))
    assert (figures["energy"]["idle_mw"], figures["energy"]["unavailable"]) == (5000.0, None)
    assert figures["sensors"]["settings"] == {"power_mode": "0: 15W"}


def test_without_a_power_sensor_the_reason_stands_there_and_no_zero(
    evidence: Evidence, profile: LatencyProfile
) -> None:
    report = report_of(evidence, replace(profile, energy=(EnergyRun("", unavailable="no INA3221"),)))
    assert "energy: unavailable: no INA3221" in report_html(report, None)
    assert report.energy is not None
    assert (report.energy.above_idle_mj, report.energy.total_mj) == (None, None)


def test_every_executed_operator_has_its_time_and_slow_spots_their_remedy(
    evidence: Evidence, profile: LatencyProfile
) -> None:
    report = report_of(evidence, profile)
    layers = report.executed.layers
    assert [layer.name for layer in layers] == [layer.name for layer in evidence.compiled.layers]
    assert np.isclose(sum(layer.time_share or 0 for layer in layers), 1.0)
    page = report_html(report, None)
    assert "Reorder: &lt;a&gt;" in page
    assert "keep one layout" in page
