"""devices.toml: read strictly, from where it is looked for, and added to without touching what stands there."""

import re
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.inventory import add_device, choose_devices, load_inventory
from targets.errors import DeviceError


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "edgeproof"
    folder.mkdir(parents=True)
    return folder


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_every_field_is_read_and_files_are_found_from_the_inventorys_folder(tmp_path: Path) -> None:
    text = """
        [devices.orin]
        transport = "ssh"
        host = "10.0.0.7"
        user = "nv"
        port = 2222
        key = "keys/orin"
        known_hosts = "~/known"
        jump = "me@gate:22"
        python = "/opt/py/bin/python3"
        work_folder = "/data/edge"
        expect = { arch = "aarch64", l4t = "36.4" }
        power_modes = ["MAXN"]
        emulated = true
        sensor_root = "/fake"
        [devices.bench]
        transport = "local"
        [groups]
        line = ["orin", "bench"]
    """
    inventory = load_inventory(write(tmp_path / "my.toml", text))
    orin = inventory.find("orin")
    assert (orin.host, orin.port, orin.jump, orin.power_modes) == ("10.0.0.7", 2222, "me@gate:22", ("MAXN",))
    assert (orin.key, orin.known_hosts) == (str(tmp_path / "keys/orin"), str(Path.home() / "known"))
    assert orin.expect == {"arch": "aarch64", "l4t": "36.4"}
    assert (orin.emulated, orin.sensor_root, orin.work_folder) == (True, "/fake", "/data/edge")
    assert inventory.expand(["bench", "line", "local"]) == ("bench", "orin", "local")


def test_the_projects_file_adds_to_the_users_and_hides_its_names(tmp_path: Path, user_folder: Path) -> None:
    write(user_folder / "devices.toml", '[devices.pi]\nhost = "old"\n[devices.nano]\nhost = "nano"\n')
    write(tmp_path / "devices.toml", '[devices.pi]\nhost = "new"\n')
    inventory = load_inventory(folder=tmp_path)
    assert (inventory.find("pi").host, inventory.find("nano").host) == ("new", "nano")
    assert inventory.files == (user_folder / "devices.toml", tmp_path / "devices.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[devices.pi]\nhots = 'x'", 'devices.pi.hots: unknown key; expected one of .*did you mean "host"'),
        ("[devices.pi]\nport = 22", "devices.pi.host: missing: address of the device"),
        ("[devices.pi]\nhost = 'x'\nport = '22'", 'devices.pi.port: expected a whole number; got "22"'),
        ("[devices.pi]\nhost = 'x'\nport = 70000", "devices.pi.port: expected a number from 1 to 65535; got 70000"),
        ("[devices.pi]\nhost = '-oProxyCommand=x'", "devices.pi.host: expected a name without spaces, and no option"),
        ("[devices.pi]\nhost = 'x'\ntransport = 'sshh'", 'transport: expected one of ssh, local; got "sshh"'),
        ("[devices.pi]\nhost = 'x'\nwork_folder = '~/'", "work_folder: expected a folder of its own, from / or ~/ on"),
        ("[devices.local]\nhost = 'x'", "devices.local: expected another name; local is this machine"),
        ("[devices.'a b']\nhost = 'x'", "a b: expected letters, digits"),
        (
            "[devices.pi]\nhost = 'x'\n[groups]\nall = ['pu']",
            r'groups.all: expected devices: local, pi; got "pu" \(did',
        ),
        ("[devices.pi]\nhost = 'x'\n[groups]\npi = ['pi']", "groups.pi: expected another name than a device's"),
        ("[device.pi]\nhost = 'x'", r'device: unknown key; expected one of devices, groups \(did you mean "devices"'),
        ("devices = ", "not TOML"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        load_inventory(write(tmp_path / "devices.toml", text))
    assert str(caught.value).startswith(f"{tmp_path}/devices.toml: ")
    assert caught.value.exit_code == 2


def test_a_named_inventory_that_is_missing_says_how_to_begin_one(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=f"expected an inventory .*edgeproof devices add NAME USER@HOST --devices {tmp_path}"
    ):
        load_inventory(tmp_path / "none.toml")


def test_an_unknown_device_is_told_with_the_nearest_and_how_to_add_it(tmp_path: Path) -> None:
    inventory = load_inventory(write(tmp_path / "devices.toml", '[devices.jetson]\nhost = "x"\n'))
    with pytest.raises(DeviceError, match=r"expected one of local, jetson; got 'jetsen' \(did you mean 'jetson'\?\)"):
        inventory.find("jetsen")
    with pytest.raises(DeviceError, match="no inventory was found: add it with `edgeproof devices add orin USER@HOST`"):
        load_inventory(folder=tmp_path / "config").find("orin")


def test_adding_keeps_what_stands_there_and_refuses_a_name_twice(tmp_path: Path) -> None:
    path = write(tmp_path / "devices.toml", "# mine\n[devices.pi]\nhost = 'x'  # on the shelf")
    add_device(path, "nano.2", {"host": "10.0.0.9", "port": 2222, "python": 'odd "path"'})
    assert path.read_text().startswith("# mine\n[devices.pi]\nhost = 'x'  # on the shelf\n")
    assert load_inventory(path).find("nano.2").python == 'odd "path"'
    before = path.read_text()
    for name, fields, words in (
        ("pi", {"host": "y"}, "expected a name of its own; got pi, which is there"),
        ("b", {"host": "y", "port": 0}, "port: expected a number from 1"),
        ("b c", {"host": "y"}, "NAME: expected letters"),
    ):
        with pytest.raises(UsageError, match=words):
            add_device(path, name, fields)
    assert path.read_text() == before


FLEET = (
    "".join(f"[devices.{name}]\nhost = 'x'\n" for name in ("cam2", "cam1", "gate"))
    + "[groups]\nhall = ['gate', 'cam1']\n"
)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["gate"], ("gate",)),
        (["hall", "cam2"], ("gate", "cam1", "cam2")),
        (["cam*", "hall"], ("cam2", "cam1", "gate")),
        (["cam[1]", "local"], ("cam1", "local")),
        (["*"], ("cam2", "cam1", "gate")),
        ([], ()),
    ],
)
def test_devices_are_chosen_by_name_group_and_pattern_each_once(
    words: list[str], names: tuple[str, ...], tmp_path: Path
) -> None:
    inventory = load_inventory(write(tmp_path / "devices.toml", FLEET))
    assert choose_devices(words, inventory, "--device") == names


@pytest.mark.parametrize(("word", "hint"), [("cam3", ' (did you mean "cam'), ("dog*", "")])
def test_what_stands_for_no_device_is_told(word: str, hint: str, tmp_path: Path) -> None:
    inventory = load_inventory(write(tmp_path / "devices.toml", FLEET))
    expected = f"--device: expected devices or groups: local, cam2, cam1, gate, hall; got {word}{hint}"
    with pytest.raises(UsageError, match=re.escape(expected)):
        choose_devices(["gate", word], inventory, "--device")
