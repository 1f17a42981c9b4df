import numpy as np
import pytest

from pipeline.artifacts import LatencyProfile
from pipeline.budget import Budget, EnergyBudget
from pipeline.measuring.energy import Energy, Unavailable, choose_rails, energy_per_inference
from pipeline.measuring.verdict import Check, Verdict
from pipeline.report.sensor_figures import energy_figures, sensor_figures, trace_json
from pipeline.report.sensor_words import energy_words, sensor_lines
from pipeline.stages.check_budget import first_answer
from targets.runner.energy import EnergyRun
from targets.runner.sensors import Channel, Quantity, Trace


def phase(values: np.ndarray, *, every_s: float = 0.1, quantity: Quantity = "power", rail: str = "VDD_IN") -> Trace:
    times_s = tuple(every_s * i for i in range(len(values)))
    return Trace(times_s, (Channel(quantity, rail, tuple(float(value) for value in values)),))


def run_of(idle_mw: float, busy_mw: float, num_inferences: int, num_readings: int = 31) -> EnergyRun:
    idle, busy = (np.full(num_readings, value) for value in (idle_mw, busy_mw))
    return EnergyRun("INA3221 (hwmon)", phase(idle), phase(busy), num_inferences)


def weigh(*runs: EnergyRun) -> Energy:
    energy = energy_per_inference(runs)
    assert isinstance(energy, Energy)
    return energy


def profile_of(*runs: EnergyRun) -> LatencyProfile:
    return LatencyProfile(
        scope="model",
        samples_ns=np.full(10, 1_000_000),
        block_sizes=(10,),
        warmup_runs=1,
        load_ms=(1.0,),
        peak_bytes=2,
        baseline_bytes=1,
        seconds=1.0,
        threads=1,
        protocol="p",
        context={},
        measured_at="2026-01-02T03:04:05+00:00",
        energy=runs,
    )


def judge(run: EnergyRun, **budget: object) -> Check:
    limits = Budget(energy=EnergyBudget.model_validate(budget))
    return first_answer(limits, latency=profile_of(run), size_bytes=1)[0]


def test_idle_power_is_subtracted() -> None:
    energy = weigh(run_of(2000.0, 5000.0, 600))  # 3 W over 3 s are 9 J
    assert energy.above_idle_mj == pytest.approx(9000 / 600)
    assert energy.total_mj == pytest.approx(15_000 / 600)
    assert energy.interval_mj == pytest.approx((15.0, 15.0))


def test_processes_count_by_their_time() -> None:
    energy = weigh(run_of(1000.0, 2000.0, 100, num_readings=11), run_of(1000.0, 4000.0, 200, num_readings=31))
    assert energy.above_idle_mj == pytest.approx((1.0 * 1000 + 3.0 * 3000) / 300)


def test_a_counters_difference_is_the_energy() -> None:
    idle = phase(np.arange(31) * 0.1 * 4e6, quantity="energy", rail="package-0")  # 4 W, in uJ
    busy = phase(np.arange(31) * 0.1 * 10e6, quantity="energy", rail="package-0")
    assert weigh(EnergyRun("RAPL", idle, busy, 1000)).above_idle_mj == pytest.approx(18.0)


def test_the_interval_holds_the_truth_also_where_readings_follow_each_other() -> None:
    random = np.random.default_rng(7)

    def readings(mean_mw: float) -> np.ndarray:
        noise = np.zeros(400)
        for i in range(1, 400):
            noise[i] = 0.6 * noise[i - 1] + random.normal(0, 100)
        return mean_mw + noise

    held = 0
    for _ in range(200):
        idle, busy = (phase(readings(mean), every_s=0.05) for mean in (3000, 5000))
        energy = weigh(EnergyRun("x", idle, busy, 1000))
        assert energy.interval_mj is not None
        held += energy.interval_mj[0] <= 2000 * 399 * 0.05 / 1000 <= energy.interval_mj[1]
    assert held >= 0.93 * 200


def test_few_readings_give_no_interval_and_leave_a_budget_undecided() -> None:
    run = run_of(1000.0, 2000.0, 10, num_readings=20)
    assert weigh(run).interval_mj is None
    assert judge(run, max_mj=1e6).verdict is Verdict.UNDECIDED


def test_a_gap_in_one_rail_leaves_that_moment_out() -> None:
    rails = tuple(
        Channel("power", name, values)
        for name, values in (("VDD_CPU", (100.0, None, 100.0)), ("VDD_GPU", (50.0, 1e9, 50.0)))
    )
    trace = Trace((0.0, 1.0, 2.0), rails)
    assert weigh(EnergyRun("x", trace, trace, 1)).busy_mw == 150.0
    empty = Trace((0.0, 1.0), (Channel("power", "VDD_IN", (None, 5.0)),))
    lacking = energy_per_inference([EnergyRun("x", empty, empty, 1)])
    assert lacking == Unavailable("x: fewer than two readings of VDD_IN succeeded")


def test_a_boards_power_is_its_inputs_rail_or_the_sum_of_those_that_contain_no_other() -> None:
    assert choose_rails(["VDD_CPU_GPU_CV", "VDD_IN", "VDD_SOC"]) == ("VDD_IN",)
    agx = ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"]
    assert choose_rails(agx) == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")


def test_a_sensor_that_always_says_the_same_is_doubted() -> None:
    energy = weigh(run_of(4914.9, 4914.9, 10))
    assert (energy.above_idle_mj, energy.interval_mj) == (0.0, (0.0, 0.0))
    assert "every reading was 4914.9 mW" in energy.note


@pytest.mark.parametrize(
    ("max_mj", "above", "verdict"),
    [
        (15.1, "idle", Verdict.PASS),
        (14.9, "idle", Verdict.FAIL),
        (15.1, "zero", Verdict.FAIL),
        (26.0, "zero", Verdict.PASS),
    ],
)
def test_an_energy_budget_is_judged_by_its_interval(max_mj: float, above: str, verdict: Verdict) -> None:
    assert judge(run_of(2000.0, 5000.0, 600), max_mj=max_mj, above=above).verdict is verdict


def test_an_energy_budget_without_a_sensor_is_undecided_and_says_why() -> None:
    check = judge(EnergyRun("", unavailable="no INA3221"), max_mj=1.0)
    assert (check.verdict, check.measured) == (Verdict.UNDECIDED, None)
    assert check.note == "no power was read: no INA3221"


def test_energy_in_words() -> None:
    known = energy_words(energy_figures(profile_of(run_of(2000.0, 5000.0, 600))))
    assert known == (
        "energy: 15.0 mJ an inference above idle (95 %: 15.0 mJ to 15.0 mJ), 25.0 mJ in all; INA3221 (hwmon): VDD_IN"
    )
    missing = energy_words(energy_figures(profile_of(EnergyRun("", unavailable="no INA3221"))))
    assert missing == "energy: unavailable: no INA3221"
    assert energy_words(energy_figures(profile_of())) == "energy: unavailable: it was not asked for"


def test_sensors_in_words() -> None:
    first = Trace(
        (0.0, 1.0),
        (Channel("clock", "policy0", (1500.0, 1500.0), 1500.0), Channel("throttling", "oc1", (3.0, 5.0))),
        settings={"power_mode": "0: 15W"},
        settings_after={"power_mode": "1: 7W"},
        unavailable={"temperature": "no zone"},
    )
    second = Trace((0.0,), (Channel("clock", "policy0", (1200.0,), 1500.0), Channel("throttling", "oc1", (6.0,))))
    figures = sensor_figures([first, second], None)
    assert sensor_lines(figures) == [
        "clock: policy0 1,200 to 1,500 of 1,500 MHz",
        "throttling: oc1 +2 events",
        "unavailable: temperature (no zone)",
        "changed meanwhile: power_mode 0: 15W -> 1: 7W",
    ]
    assert trace_json(profile_of()).startswith('{"processes": []')
