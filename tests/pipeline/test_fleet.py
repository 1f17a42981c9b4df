"""One deploy to many devices: what each does or fails to do is its own, and what all share is done once."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from pretended_devices import FULL, LOST, SILENT, Bench, Faults
from rich.console import Console

from pipeline.fleet import FleetOptions, deploy_fleet
from pipeline.fleet_member import Outcome
from pipeline.history import History
from pipeline.measuring.verdict import Verdict
from pipeline.recipe import Recipe, load_recipe
from pipeline.report.report import Report, read_report
from pipeline.verbs.deploy import list_legs
from pipeline.verbs.fleet import exit_code_of, show_outcomes
from targets.devices.inventory import Inventory
from targets.errors import DeviceError

RECIPE = """
name = "tiny"
version = "1.0.0"
license = "Apache-2.0"

[task]
kind = "classification"
data = { kind = "digits", test = { share = 0.05 } }
normalization = { mean = [0.3], std = [0.37] }

[teacher]
model = { kind = "resnet", depth = 8, width = 4 }
training = { epochs = 1, precision = "32-true" }

[student]
model = { kind = "resnet", depth = 8, width = 4 }

[distillation]
training = { epochs = 2, precision = "32-true" }
losses = [{ kind = "cross_entropy" }]

[[deployments]]
name = "edge"
target = { kind = "null" }
precision = "fp32"
budget = { latency = { max_ms = 60_000.0, percentile = 50 }, accuracy = { min = 0.2 } }
profile = { min_samples = 16, processes = 1, max_seconds = 6.0 }
"""
SOUND, CUT, FULL_DISK, WRONG = ("cam1", "cam2"), "cam3", "cam4", "cam5"
FIRST = "cam0"
ALL = (FIRST, *SOUND, CUT, FULL_DISK, WRONG)
FAULTS = Faults(loses_power_at={FIRST: "compile", CUT: "profile"}, is_full=(FULL_DISK,), answers_wrong=(WRONG,))


class Yard:
    """A recipe, the build folder of its deploys, and pretended devices."""

    def __init__(self, folder: Path) -> None:
        (folder / "tiny.toml").write_text(RECIPE)
        self.folder, self.build = folder, folder / "build"
        self.said = folder / "said.txt"

    def recipe(self) -> Recipe:
        return load_recipe(self.folder / "tiny.toml")

    def deploy(self, names: tuple[str, ...], faults: Faults, options: FleetOptions) -> dict[str, Outcome]:
        recipe = self.recipe()
        self.bench = Bench(self.folder / "devices", faults)
        with self.said.open("w") as said:
            outcomes = deploy_fleet(
                recipe,
                list_legs(recipe, (None,), names, self.build),
                build=self.build,
                console=Console(file=said, width=200),
                devices=Inventory(),
                options=options,
                open_one=self.bench.open_one,
            )
        return {outcome.device: outcome for outcome in outcomes}

    def report(self, name: str) -> Report:
        return read_report((self.build / "tiny" / "edge" / "devices" / name / "report.json").read_text())


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Yard:
    return Yard(tmp_path_factory.mktemp("yard"))


@pytest.fixture(scope="module")
def outcomes(yard: Yard) -> dict[str, Outcome]:
    return yard.deploy(ALL, FAULTS, FleetOptions(accept_undecided=True))  # threads of one process disturb each other


def test_what_one_device_fails_at_stops_no_other(outcomes: dict[str, Outcome]) -> None:
    states = {name: outcome.state for name, outcome in outcomes.items()}
    assert [name for name in ALL if states[name] == "released"] == [*SOUND]
    assert [name for name in ALL if states[name] == "failed"] == [FIRST, CUT, FULL_DISK]
    assert states[WRONG] == "refused"
    assert LOST in outcomes[CUT].message
    assert FULL in outcomes[FULL_DISK].message
    assert "accuracy fail" in outcomes[WRONG].message
    assert outcomes[WRONG].verdict is Verdict.FAIL


def test_each_device_has_a_report_and_a_release_of_its_own(outcomes: dict[str, Outcome], yard: Yard) -> None:
    for name in SOUND:
        installed = json.loads((yard.build / "tiny" / "edge" / "devices" / name / "installed.json").read_text())
        assert yard.report(name).device == name
        assert installed["switch"]["version"] == outcomes[name].installed
        assert (yard.folder / "devices" / name / "releases" / "tiny-edge" / "current").is_symlink()
    assert not (yard.folder / "devices" / WRONG / "releases").exists()
    assert not (yard.build / "tiny" / "edge" / "devices" / CUT).exists()


def test_devices_that_are_alike_share_training_and_one_compile(outcomes: dict[str, Outcome], yard: Yard) -> None:
    entries = yard.build / "store" / "entries"
    assert [len(list((entries / stage).iterdir())) for stage in ("train_teacher", "distill_student")] == [1, 1]
    assert len(list((entries / "export_onnx").iterdir())) == 2  # untrained, and trained
    stages = [stage.name for stage in yard.report("cam2").stages]
    assert {"train_teacher", "distill_student", "compile_model", "profile_latency"} <= {*stages}


def test_the_history_notes_every_device_that_was_measured(outcomes: dict[str, Outcome], yard: Yard) -> None:
    noted = Counter(entry.report.device for entry in History(yard.build).entries())
    assert noted == Counter({"cam1": 1, "cam2": 1, FULL_DISK: 1, WRONG: 1})


def test_lines_say_which_device_they_are_about(outcomes: dict[str, Outcome], yard: Yard) -> None:
    lines = yard.said.read_text().splitlines()
    assert any(line.startswith("cam1: profile_latency: done in") for line in lines)
    assert sum(line.startswith("train_teacher: done in") for line in lines) == 1


def test_the_table_tells_of_every_device_and_why(outcomes: dict[str, Outcome], tmp_path: Path) -> None:
    with (tmp_path / "table.txt").open("w") as file:
        show_outcomes(Console(file=file, width=120), list(outcomes.values()))
    text = (tmp_path / "table.txt").read_text()
    assert [line.split()[0] for line in text.splitlines()[1:7]] == list(ALL)
    assert f"{CUT}: failed: device '{CUT}': {LOST}" in text
    assert f"{WRONG}: refused by budgets: " in text


def test_who_does_not_answer_is_named_and_nothing_begins(yard: Yard, outcomes: dict[str, Outcome]) -> None:
    faults = Faults(is_silent=("cam2", "cam9"))
    with pytest.raises(DeviceError, match=r"all 3 devices to be ready .*got 2 that are not") as caught:
        yard.deploy(("cam1", "cam2", "cam9"), faults, FleetOptions())
    assert f"cam9: device 'cam9': {SILENT}" in str(caught.value)
    assert "--skip-unreachable" in str(caught.value)
    assert yard.bench.begun == [("cam1", "probe")]


def test_it_goes_on_without_who_does_not_answer_where_told_so(yard: Yard, outcomes: dict[str, Outcome]) -> None:
    faults = Faults(is_silent=("cam9",), loses_power_at={"cam2": "infer"})
    found = yard.deploy(("cam2", "cam1", "cam9"), faults, FleetOptions(skip_unreachable=True, accept_undecided=True))
    assert [found[name].state for name in ("cam2", "cam1", "cam9")] == ["failed", "released", "left out"]
    assert SILENT in found["cam9"].message
    with pytest.raises(DeviceError, match="got 1 that are not"):
        yard.deploy(("cam9",), Faults(is_silent=("cam9",)), FleetOptions(skip_unreachable=True))


@pytest.mark.parametrize(
    ("codes", "worst"), [((0, 5), 5), ((5, 3, 0), 3), ((3, 4), 4), ((4, 1, 3), 1), ((0, 0), 0), ((4, 2), 2)]
)
def test_the_exit_code_is_the_worst_of_all(codes: tuple[int, ...], worst: int) -> None:
    plain = Outcome(device="x", deployment="edge", state="failed")
    verdicts = {0: Verdict.PASS, 3: Verdict.FAIL, 5: Verdict.UNDECIDED}
    found = [
        replace(plain, state="released" if code == 0 else "refused", verdict=verdicts[code])
        if code in verdicts
        else replace(plain, error_code=code)
        for code in codes
    ]
    assert exit_code_of(found) == worst
