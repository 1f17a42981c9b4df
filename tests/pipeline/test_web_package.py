import io
import json
import tarfile

import pytest
from android_samples import LABELS, sample_payload
from pydantic import ValidationError

from pipeline.release.payload import Package, Payload
from pipeline.release.platforms.web import Web
from pipeline.release.verify import verify_bytes


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    return sample_payload(tmp_path_factory.mktemp("payload"))


@pytest.fixture(scope="module")
def package(payload: Payload) -> Package:
    return Web(name="@example/digits").package(payload, None)


def contents_of(package: Package) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(package.files[package.archive])) as archive:
        files = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        return {name: file.read() for name, file in files.items() if file is not None}


def test_package_is_one_archive_with_the_code_above_the_release(package: Package, payload: Payload) -> None:
    assert package.files.keys() == {"example-digits-0.1.0.tgz"}
    contents = contents_of(package)
    code = {
        "README.md",
        "constants.js",
        "index.d.ts",
        "index.js",
        "model.js",
        "node.js",
        "package.json",
        "self-test.js",
    }
    assert {name.removeprefix("package/") for name in contents if "/release/" not in name} == {
        *code,
        "example/index.html",
        "example/main.js",
    }
    assert contents["package/release/model.onnx"] == payload.model
    assert contents["package/release/report.json"] == payload.files["report.json"]


def test_package_json_names_entries_of_browsers_and_node_and_leaves_the_runtime_to_the_app(package: Package) -> None:
    manifest = json.loads(contents_of(package)["package/package.json"])
    assert (manifest["name"], manifest["version"], manifest["license"]) == ("@example/digits", "0.1.0", "Apache-2.0")
    entries = {"types": "./index.d.ts", "node": "./node.js", "default": "./index.js"}
    assert manifest["exports"]["."] == entries
    assert [*manifest["exports"]["."]] == [*entries], "the first that fits is taken: types before code"
    assert manifest["peerDependencies"] == {"onnxruntime-node": "^1.23.2", "onnxruntime-web": "^1.23.2"}
    assert all(entry["optional"] for entry in manifest["peerDependenciesMeta"].values())
    assert manifest["bin"] == {"digits-self-test": "self-test.js"}


def test_same_release_gives_the_same_bytes_and_verify_takes_them(package: Package, payload: Payload) -> None:
    assert Web(name="@example/digits").package(payload, None).files == package.files
    verification = verify_bytes(package.files[package.archive])
    assert verification.differences == ()
    assert verification.manifest is not None
    assert verification.manifest.platform == "web"


def test_readme_and_page_say_where_nothing_was_measured(package: Package) -> None:
    contents = contents_of(package)
    for name in ("README.md", "example/index.html", "index.d.ts"):
        assert "not measured on web: the verdict (pass) is of" in contents[f"package/{name}"].decode().lower(), name
    assert package.limits[0] in contents["package/README.md"].decode().replace("Not measured", "not measured")


def test_classes_of_any_alphabet_are_a_type(package: Package) -> None:
    quoted = " | ".join(json.dumps(label, ensure_ascii=False) for label in LABELS)
    assert f"export type Label = {quoted};" in contents_of(package)["package/index.d.ts"].decode()


def test_page_finds_the_runtime_beside_the_package_with_and_without_a_scope(payload: Payload, package: Package) -> None:
    plain = Web().package(payload, None)
    assert plain.archive == "edgeproof-digits-0.1.0.tgz"
    for made, folder in ((package, "../../../onnxruntime-web/"), (plain, "../../onnxruntime-web/")):
        assert f'"{folder}dist' in contents_of(made)["package/example/index.html"].decode()


@pytest.mark.slow  # ONNX Runtime converts it
def test_model_for_reduced_builds_comes_with_its_digest_where_the_recipe_asks_for_it(payload: Payload) -> None:
    contents = contents_of(Web(ort=True).package(payload, None))
    assert contents["package/release/model.ort"][4:8] == b"ORTM"  # the identifier of its flatbuffers schema
    assert b'"ort": "model.ort"' in contents["package/constants.js"]
    assert b"model.ort" in contents["package/README.md"]


@pytest.mark.parametrize(
    "name",
    ["Digits", "_digits", ".digits", "two words", "@scope/", "@Scope/digits", "a/b", "größe", "http", "x" * 215],
)
def test_name_that_npm_refuses_is_refused_in_the_recipe(name: str) -> None:
    with pytest.raises(ValidationError, match="expected a name that npm takes, as digits or @example/digits"):
        Web(name=name)


@pytest.mark.parametrize("version", ["01.2.3", "1.2.3-rc..1", "1.2.3-01", "1.2.3+build"])
def test_version_that_npm_refuses_or_changes_is_refused(version: str) -> None:
    refusal = Web().refusal("digits", version)
    assert refusal is not None
    assert f'got "{version}"' in refusal


@pytest.mark.parametrize("version", ["1.2.3", "0.1.0-rc.1", "10.20.30-alpha-1.x"])
def test_version_of_semver_is_taken(version: str) -> None:
    assert Web().refusal("digits", version) is None


@pytest.mark.parametrize("versions", ["latest", "^1", ">=1.22", "1.22.0 || 2.0.0"])
def test_range_of_versions_that_is_none_is_refused(versions: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        Web(onnxruntime=versions)
