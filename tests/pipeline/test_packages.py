"""What every platform's package promises: made from the release alone, the same anywhere, and checked to the byte."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from android_samples import sample_payload
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sample_release import compiled_model, package, passed_report

from pipeline.errors import UsageError
from pipeline.release.packages import make_package, overhead, write_package
from pipeline.release.payload import Package, Payload, read_payload
from pipeline.release.platforms import DEFAULTS
from pipeline.release.signing import SigningKey
from pipeline.release.verify import verify_bytes
from targets.errors import EdgeproofError

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
PLATFORMS = {kind: platform.model_copy(update={"ort": False}) for kind, platform in DEFAULTS.items()}
"""Without model.ort, which takes a process of its own to write."""
EACH = pytest.mark.parametrize("kind", list(PLATFORMS))


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    return sample_payload(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def packages(payload: Payload) -> dict[str, Package]:
    return {kind: make_package(platform, payload, KEY) for kind, platform in PLATFORMS.items()}


@contextmanager
def _elsewhere() -> Iterator[None]:
    """Another time zone, and other permissions for what is written."""
    umask, zone = os.umask(0o077), os.environ.get("TZ")
    os.environ["TZ"] = "Pacific/Kiritimati"
    time.tzset()
    try:
        yield
    finally:
        os.umask(umask)
        os.environ.pop("TZ") if zone is None else os.environ.update(TZ=zone)
        time.tzset()


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("kind", "ort"),
    [*((kind, False) for kind in PLATFORMS), *(pytest.param(kind, True, marks=pytest.mark.slow) for kind in PLATFORMS)],
)
def test_one_release_gives_the_same_bytes_in_another_folder_at_another_time(
    kind: str, ort: bool, payload: Payload, tmp_path: Path
) -> None:
    platform = (DEFAULTS if ort else PLATFORMS)[kind]
    first = make_package(platform, payload, KEY)
    write_package(first, tmp_path / "first", is_ours=False)
    with _elsewhere():
        folder = tmp_path / "another place"
        again = make_package(platform, sample_payload(folder), KEY)
        write_package(again, folder / "packages" / kind, is_ours=False)
    assert _tree(folder / "packages" / kind) == _tree(tmp_path / "first") == dict(first.files)
    assert all(os.fsencode(tmp_path) not in content for content in again.files.values())


@EACH
def test_archive_is_signed_and_says_what_it_is_for(kind: str, packages: dict[str, Package], payload: Payload) -> None:
    verification = verify_bytes(packages[kind].files[packages[kind].archive], KEY.public)
    assert (verification.differences, verification.is_trusted) == ((), True)
    manifest = verification.manifest
    assert manifest is not None
    assert (manifest.platform, manifest.lineage) == (kind, payload.manifest.lineage)
    assert verification.files[manifest.model] == payload.model
    assert overhead(packages[kind], payload).added_bytes > 0


@EACH
def test_any_changed_byte_of_a_package_is_found(kind: str, packages: dict[str, Package]) -> None:
    raw = packages[kind].files[packages[kind].archive]
    positions = range(0, len(raw), len(raw) // 150)
    changed = ((at, raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :]) for at in positions)
    assert [at for at, each in changed if verify_bytes(each).ok] == []


@EACH
def test_what_was_not_run_is_said(kind: str, packages: dict[str, Package]) -> None:
    assert any("not measured on" in limit for limit in packages[kind].limits)


def test_release_of_another_runtime_and_a_package_are_not_packaged(
    tmp_path: Path, packages: dict[str, Package]
) -> None:
    model = compiled_model(tmp_path, runtime="openvino")
    other = read_payload(package(tmp_path, model, passed_report(model)).path)
    with pytest.raises(EdgeproofError, match=r"expected a release of onnxruntime, .* got one of openvino"):
        make_package(PLATFORMS["web"], other)
    path = tmp_path / "digits.tgz"
    path.write_bytes(packages["web"].files[packages["web"].archive])
    with pytest.raises(EdgeproofError, match="expected the release itself; got the package for web"):
        make_package(PLATFORMS["linux"], read_payload(path))


def test_altered_release_is_not_read(tmp_path: Path, payload: Payload) -> None:
    path = tmp_path / "changed.zip"
    model = compiled_model(tmp_path)
    path.write_bytes(package(tmp_path, model, passed_report(model)).path.read_bytes().replace(b"model m", b"MODEL m"))
    with pytest.raises(EdgeproofError, match=r"model\.onnx: sha256"):
        read_payload(path)


def test_our_folder_is_replaced_as_a_whole_and_another_is_left_alone(
    tmp_path: Path, packages: dict[str, Package]
) -> None:
    folder, web = tmp_path / "web", packages["web"]
    write_package(web, folder, is_ours=True)
    (folder / "stale.txt").write_text("of an earlier version")
    write_package(web, folder, is_ours=True)
    assert _tree(folder) == dict(web.files)
    with pytest.raises(UsageError, match="expected a new or an empty folder"):
        write_package(web, folder, is_ours=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["web"]


def test_half_written_package_is_never_seen(tmp_path: Path, packages: dict[str, Package]) -> None:
    folder, web = tmp_path / "web", packages["web"]
    write_package(web, folder, is_ours=True)
    impossible = replace(web, files={**web.files, "a": b"", "a/b": b""})
    with pytest.raises(OSError, match="a"):
        write_package(impossible, folder, is_ours=True)
    assert _tree(folder) == dict(web.files)
    shutil.rmtree(folder)
    assert list(tmp_path.iterdir()) == []
