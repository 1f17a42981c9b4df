import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from pydantic import JsonValue
from sample_release import compiled_model, passed_report

from pipeline.errors import StoreError, UsageError
from pipeline.history import SCHEMA, History
from pipeline.report.comparison import compare, differences
from pipeline.report.report import AccuracyFigures, Report, report_json, samples_bytes
from pipeline.verbs.history import find_earlier, find_profile, run_compare, run_history

SAMPLES_NS = np.random.default_rng(0).normal(1e6, 2e4, 2000).astype(np.int64)
CONTEXT: dict[str, JsonValue] = {
    "arch": "aarch64",
    "cpu": "Cortex-A78AE",
    "threads": 1,
    "before": {"settings": {"power_mode": "15W"}},
}


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return passed_report(compiled_model(tmp_path)).model_copy(update={"context": CONTEXT})


def test_what_was_added_is_read_back_in_order(tmp_path: Path, report: Report) -> None:
    history = History(tmp_path)
    other = report.model_copy(update={"deployment": "other"})
    assert [history.add(each, SAMPLES_NS) for each in (report, other, report)] == [1, 2, 3]
    assert [entry.number for entry in history.entries(deployment="cpu")] == [1, 3]
    assert [entry.number for entry in history.entries(last=2)] == [2, 3]
    entry = history.entry(2)
    assert entry.report == other
    np.testing.assert_array_equal(entry.samples_ns, SAMPLES_NS)


def test_a_number_that_is_not_there_and_a_file_that_is_no_history_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="7: expected the number of a profile"):
        History(tmp_path).entry(7)
    history = History(tmp_path)
    history.path.write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="expected a history that can be read"):
        history.entries()


def test_a_damaged_history_is_set_aside_whole_and_a_sound_one_stays(tmp_path: Path, report: Report) -> None:
    history = History(tmp_path)
    assert history.set_aside_if_damaged() is None
    history.path.write_bytes(b"no database" * 100)
    aside = history.set_aside_if_damaged()
    assert aside is not None
    assert aside.read_bytes() == b"no database" * 100
    assert history.add(report, SAMPLES_NS) == 1
    assert history.set_aside_if_damaged() is None


def test_a_history_of_a_newer_version_is_left_alone(tmp_path: Path, report: Report) -> None:
    history = History(tmp_path)
    history.add(report, SAMPLES_NS)
    with sqlite3.connect(history.path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(StoreError, match="of a newer edgeproof"):
        history.add(report, SAMPLES_NS)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"cpu": "another"}, "cpu: Cortex-A78AE against another"),
        ({"before": {"settings": {"power_mode": "MAXN"}}}, "settings: .*15W.* against .*MAXN"),
        ({"threads": 2}, "threads: 1 against 2"),
    ],
    ids=["device", "power mode", "threads"],
)
def test_profiles_of_other_conditions_are_not_compared_unless_told_to(
    tmp_path: Path, report: Report, change: dict[str, JsonValue], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    history = History(tmp_path)
    for each in (report, report.model_copy(update={"context": {**CONTEXT, **change}})):
        history.add(each, SAMPLES_NS)
    with pytest.raises(UsageError, match=named):
        run_compare("1", "2", build=tmp_path, anyway=False, as_json=False)
    assert run_compare("1", "2", build=tmp_path, anyway=True, as_json=True) == 0
    assert len(json.loads(capsys.readouterr().out)["differences"]) == 1
    assert find_earlier(history.entry(2), [history.entry(1)]) is None


def test_devices_of_one_kind_are_compared_each_with_its_own_earlier_profile(tmp_path: Path, report: Report) -> None:
    history = History(tmp_path)
    for name in ("cam1", "cam2", "cam1"):
        history.add(report.model_copy(update={"device": name}), SAMPLES_NS)
    first, second, third = history.entries()
    found = find_earlier(third, [first, second])
    assert found is not None
    assert (found.number, find_earlier(second, [first])) == (1, None)


@pytest.mark.parametrize(
    ("slower", "expected"), [(1.05, "worse"), (1 / 1.05, "better"), (1.0002, "same")], ids=["slower", "faster", "same"]
)
def test_latency_changed_only_where_the_interval_of_the_ratio_excludes_one(
    report: Report, slower: float, expected: str
) -> None:
    fresh = np.random.default_rng(1).normal(1e6 * slower, 2e4, 2000).astype(np.int64)
    p50, p99, *_ = compare(report, report, SAMPLES_NS, fresh)
    assert (p50.name, p50.change, p99.name, p99.change) == ("p50", expected, "p99", expected)
    assert p50.interval is not None
    assert p50.interval[0] < slower < p50.interval[1]


def test_accuracy_is_worse_only_beyond_what_the_test_set_can_tell(report: Report) -> None:
    def with_accuracy(share: float, num_samples: int) -> Report:
        figures = AccuracyFigures(
            metric="top-1", teacher=0.9, student=0.9, quantized=0.9, on_device=share, num_samples=num_samples
        )
        return report.model_copy(update={"accuracy": figures})

    def change(num_samples: int) -> tuple[str, tuple[float, float] | None]:
        figures = compare(with_accuracy(0.90, num_samples), with_accuracy(0.88, num_samples), SAMPLES_NS, SAMPLES_NS)
        found = next(each for each in figures if each.name == "accuracy")
        return found.change, found.interval

    assert change(300)[0] == "same"
    worse, interval = change(10_000)
    assert worse == "worse"
    assert interval == pytest.approx((-0.02868, -0.01133), abs=2e-5)  # Newcombe, method 10, unpaired, by hand


def test_a_slower_profile_ends_a_comparison_with_3(tmp_path: Path, report: Report) -> None:
    history = History(tmp_path)
    history.add(report, SAMPLES_NS)
    history.add(report, SAMPLES_NS * 2)
    assert run_compare("1", "2", build=tmp_path, anyway=False, as_json=False) == 3
    assert run_compare("2", "1", build=tmp_path, anyway=False, as_json=False) == 0


def test_a_profile_is_found_by_number_file_and_folder(tmp_path: Path, report: Report) -> None:
    (tmp_path / "report.json").write_text(report_json(report))
    (tmp_path / "latency_samples_ns.npz").write_bytes(samples_bytes(SAMPLES_NS))
    History(tmp_path).add(report, SAMPLES_NS)
    for name in ("1", str(tmp_path), str(tmp_path / "report.json")):
        assert find_profile(name, tmp_path).report == report
    with pytest.raises(UsageError, match="nowhere: expected the number of a profile"):
        find_profile("nowhere", tmp_path)


def test_the_list_says_what_changed_since_the_profile_before(
    tmp_path: Path, report: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    history = History(tmp_path)
    for samples in (SAMPLES_NS, SAMPLES_NS * 2):
        history.add(report, samples)
    assert run_history(tmp_path, None, None, last=20, as_json=True) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["since"], second["since"]) == (None, 1)
    assert {each["name"] for each in second["changes"] if each["change"] == "worse"} == {"p50", "p99"}


def test_the_same_profile_differs_in_nothing(report: Report) -> None:
    assert differences(report, report) == []
