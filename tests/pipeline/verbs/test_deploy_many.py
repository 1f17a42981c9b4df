"""`edgeproof deploy --device`: what the command line means by several devices, and what a machine reads of them."""

import json
from pathlib import Path

import pytest

from pipeline.cli import run
from pipeline.fleet_member import Outcome
from pipeline.measuring.verdict import Verdict
from pipeline.recipe import load_recipe
from pipeline.verbs.deploy import is_several, list_legs
from pipeline.verbs.fleet import outcomes_as_json
from targets.devices.inventory import DeviceEntry, Inventory

DIGITS = Path(__file__).parents[3] / "recipes" / "digits.toml"
INVENTORY = Inventory({"cam1": DeviceEntry(host="x"), "cam2": DeviceEntry(host="y")}, {"hall": ("cam1",)})


@pytest.mark.parametrize(
    ("words", "several"),
    [([], False), (["cam1"], False), (["cam1", "cam2"], True), (["hall"], True), (["cam*"], True), (["local"], False)],
)
def test_only_one_devices_own_name_is_a_deploy_to_one_device(words: list[str], several: bool) -> None:
    assert is_several(words, INVENTORY) is several


def test_each_device_has_a_folder_and_without_names_each_deployment_has(tmp_path: Path) -> None:
    recipe = load_recipe(DIGITS)
    legs = list_legs(recipe, ("intel", "cpu", "intel"), ("cam1", "cam2"), tmp_path)
    found = [(leg.deployment.name, leg.deployment.device, leg.folder) for leg in legs]
    digits = tmp_path / "digits"
    assert found == [
        (name, device, digits / name / "devices" / device) for name in ("intel", "cpu") for device in ("cam1", "cam2")
    ]
    legs = list_legs(recipe, ("cpu", "jetson"), (), tmp_path)
    assert [(leg.deployment.device, leg.folder) for leg in legs] == [
        ("local", digits / "cpu"),
        ("jetson", digits / "jetson"),
    ]


def test_a_device_that_nobody_knows_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "devices.toml").write_text('[devices.cam1]\nhost = "x"\n')
    devices = ("--devices", str(tmp_path / "devices.toml"))
    assert run(["deploy", str(DIGITS), "--device", "cam1,cam7", *devices, "--build", str(tmp_path / "build")]) == 2
    assert "--device: expected devices or groups: local, cam1; got cam7" in capsys.readouterr().err
    assert not (tmp_path / "build").exists()


def test_machines_read_what_became_of_each_device() -> None:
    good = Outcome(device="cam1", deployment="cpu", state="released", verdict=Verdict.PASS, p99_ms=1.5, installed="1-a")
    gone = Outcome(device="cam2", deployment="cpu", state="left out", message="no answer", error_code=4)
    found = json.loads(json.dumps(outcomes_as_json(load_recipe(DIGITS), [good, gone], seconds=2.0)))
    assert (found["recipe"], found["exit_code"], found["seconds"]) == ("digits", 0, 2.0)
    assert [(row["device"], row["state"], row["exit_code"]) for row in found["devices"]] == [
        ("cam1", "released", 0),
        ("cam2", "left out", 4),
    ]
    assert found["devices"][0]["verdict"] == "pass"
