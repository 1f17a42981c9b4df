import json
import time
from functools import partial
from pathlib import Path

import pytest

from targets import Null
from targets.devices.device import Device, ProfileRequest
from targets.devices.local import Local
from targets.runner.energy import Scale, open_power
from targets.runner.facts import list_counters, read_sensors
from targets.runner.sensors import QUANTITIES, UNITS, Channel, Trace, dump_trace, load_trace
from targets.runner.sensors_files import FINDERS, find_sensors
from targets.runner.sensors_sampler import Sampler, Watch
from targets.runner.sensors_settings import read_jetson, read_settings
from targets.target import RunOptions
from tests.targets.board_files import ORIN_NANO, write_board

PACKAGE = "sys/class/powercap/intel-rapl:0"
TEGRASTATS = "#!/bin/sh\nwhile :; do echo 'RAM 1/2MB (lfb 1x4MB) VDD_IN 4915mW/4915mW NC 0mW/0mW'; sleep 0.05; done"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    return write_board(tmp_path / "board", ORIN_NANO)


def readings(root: Path) -> dict[str, float]:
    return {f"{each.quantity} {each.name}": each.read() for each in find_sensors(root).found}


def test_a_jetsons_sensors_are_read_in_their_units(board: Path) -> None:
    values = readings(board)
    values.pop("other_load other processes")  # without this process's own time
    assert values == pytest.approx(
        {
            "power VDD_IN": 4915.0,  # 5000 mV times 983 mA
            "power VDD_CPU_GPU_CV": 449.28,
            "temperature cpu-thermal": 46.968,
            "clock policy0": 1510.4,
            "clock policy4": 729.6,
            "clock policy10": 729.6,
            "clock 17000000.gpu": 624.75,
            "cooling cpufreq-cpu0 (cooling_device0)": 0.0,
            "throttling oc1_event_cnt": 0.0,
            "pressure cpu some": 123456.0,
            "load 1 min": 0.31,
            "steal other virtual machines": 0.5,  # 50 of 100 Hz
            "swapping in and out": 7.0,
        }
    )
    limits = {each.name: each.limit for each in find_sensors(board).found}
    assert (limits["cpu-thermal"], limits["policy0"], limits["17000000.gpu"]) == (99.0, 1510.4, 624.75)


def test_what_is_set_has_names_and_the_power_mode_its_words(board: Path) -> None:
    assert read_settings(board) == {
        "governor.policy0": "schedutil",
        "min_mhz.policy0": "729.6",
        "max_mhz.policy0": "1510.4",
        "governor.17000000.gpu": "nvhost_podgov",
        "max_mhz.17000000.gpu": "624.75",
        "power_mode": "2: MAXN_SUPER",
    }
    assert read_jetson(board) == {"l4t": "36.4.3"}
    assert read_sensors(board)["psi_cpu_some_avg10"] == 1.25
    counters = list_counters(board)
    assert counters["throttling"] == "oc1_event_cnt"
    assert counters["energy"] == "unavailable: no /sys/class/powercap/intel-rapl:*"
    assert counters["tegrastats"] == "unavailable: no such program"


def test_a_device_without_sensors_says_why_of_each_and_never_zero(tmp_path: Path) -> None:
    sensors = find_sensors(tmp_path)
    assert sensors.found == ()
    assert set(sensors.unavailable) == set(QUANTITIES) == set(FINDERS) == set(UNITS)
    assert all(reason.startswith("no /") or reason.startswith("no ") for reason in sensors.unavailable.values())
    said = read_sensors(tmp_path)
    assert all(str(value).startswith("unavailable: ") for value in said.values())


@pytest.mark.parametrize(
    ("file", "text", "quantity", "reason"),
    [
        ("sys/class/thermal/thermal_zone0/temp", "NaN?", "temperature", "expected a number; got 'NaN?'"),
        ("sys/class/thermal/thermal_zone0/temp", "9999999", "temperature", "expected -60 to 200; got 10000"),
        ("sys/class/thermal/thermal_zone0/temp", "", "temperature", "expected a number; got ''"),
        ("proc/pressure/cpu", "none", "pressure", "expected a line with avg10 and total; got 'none'"),
        ("proc/stat", "cpu 1 2", "steal", "expected 8 times of all processors; got 2"),
    ],
)
def test_garbage_from_a_sensor_is_no_reading(board: Path, file: str, text: str, quantity: str, reason: str) -> None:
    (board / file).write_text(text)
    assert reason in find_sensors(board).unavailable[quantity]


def test_a_rail_that_may_not_be_read_gives_its_reason(board: Path) -> None:
    for number in (1, 2):
        path = board / f"sys/class/hwmon/hwmon0/curr{number}_input"
        path.unlink()
        path.mkdir()  # reading fails for root too
    assert find_sensors(board, ["power"]).unavailable == {"power": "VDD_IN: Is a directory"}


def test_rapl_counts_on_when_its_counter_wraps(tmp_path: Path) -> None:
    files = {"name": "package-0", "energy_uj": "900", "max_energy_range_uj": "1000"}
    root = write_board(tmp_path, {f"{PACKAGE}/{name}": text for name, text in files.items()})
    sensor = find_sensors(root, ["energy"]).found[0]
    values = []
    for raw in (950, 10, 400, 5):
        (root / PACKAGE / "energy_uj").write_text(str(raw))
        values.append(sensor.read())
    assert values == [950.0, 1010.0, 1400.0, 2005.0]


def test_a_trace_survives_json_with_its_gaps(board: Path) -> None:
    with Watch(board) as watch:
        watch.mark_start()
        (board / "sys/class/thermal/thermal_zone0/temp").write_text("garbage")
        (board / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor").write_text("powersave")
    trace = watch.trace
    assert load_trace(json.loads(json.dumps(dump_trace(trace)))) == trace
    assert trace.of("temperature")[0].values == (46.968, None)
    assert trace.times_s[0] < 0 <= trace.times_s[-1]
    assert trace.changed == {"governor.policy0": ("schedutil", "powersave")}
    assert trace.of("power") == ()
    assert "see the energy" in trace.unavailable["power"]


def test_a_counters_increase_leaves_restarts_and_gaps_out() -> None:
    assert Channel("throttling", "x", (5.0, 7.0, None, 1.0, 4.0)).increase == 2.0 + 0.0 + 3.0
    assert Trace().seconds == 0.0


def test_the_sampler_reads_at_both_ends_and_between(board: Path) -> None:
    with Sampler(find_sensors(board, ["temperature"]), interval_s=0.01) as sampler:
        time.sleep(0.2)
    trace = sampler.trace(0.0, {}, {})
    assert len(trace.times_s) > 5
    assert set(trace.channels[0].values) == {46.968}


def test_energy_is_weighed_at_rest_and_while_inferring(board: Path) -> None:
    scale = Scale(board, seconds=0.1)
    scale.rest()
    run = scale.weigh(lambda: time.sleep(0.001))
    assert run is not None
    assert (run.source, run.unavailable) == ("INA3221 (hwmon)", "")
    assert 0 < run.num_inferences <= 100
    assert run.busy.times_s[-1] >= 0.1
    assert set(run.idle.of("power")[0].values) == {4915.0}
    assert Scale(board, seconds=0).weigh(lambda: None) is None


def test_without_a_power_sensor_every_source_says_why(tmp_path: Path) -> None:
    scale = Scale(tmp_path, seconds=5.0)
    start = time.monotonic()
    scale.rest()
    run = scale.weigh(lambda: None)
    assert time.monotonic() - start < 2.0
    assert run is not None
    assert run.unavailable == (
        "no INA3221 under /sys/class/hwmon; no /sys/class/powercap/intel-rapl:*; no such program: tegrastats"
    )


def test_tegrastats_stands_in_where_no_rail_can_be_read(tmp_path: Path) -> None:
    program = write_board(tmp_path, {"usr/bin/tegrastats": TEGRASTATS}) / "usr/bin/tegrastats"
    program.chmod(0o755)
    with open_power(tmp_path) as (source, power):
        assert source == "tegrastats"
        assert [(each.name, each.read()) for each in power.found] == [("VDD_IN", 4915.0)]
    program.write_text("#!/bin/sh\necho 'needs root'\n")
    with open_power(tmp_path) as (source, power):
        assert source == ""
        assert "got 'needs root'" in power.unavailable["tegrastats"]


def test_a_profile_brings_the_boards_trace_and_energy(board: Path, linear_model: Path, tmp_path: Path) -> None:
    device = Device("board", partial(Local, tmp_path / "jobs"), sensor_root=str(board))
    request = ProfileRequest(num_samples=20, max_seconds=20, energy_seconds=0.2)
    block = device.profile(Null(latency_ms=1), linear_model, RunOptions(), request)
    assert block.trace.of("clock")[0].limit == 1510.4
    assert block.trace.settings["power_mode"] == "2: MAXN_SUPER"
    assert block.energy is not None
    assert block.energy.num_inferences >= 1
    assert block.context["before"]["temperatures_c"] == {"cpu-thermal": 46.968}  # type: ignore[index]
