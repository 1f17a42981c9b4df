import hashlib
import io
import json
import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from android_samples import sample_payload
from pydantic import ValidationError

from pipeline.release.payload import Package, Payload
from pipeline.release.platforms.android import Android, properties_bytes
from pipeline.release.verify import verify_bytes

FOLDER = "maven/com/example/digits/"
POM = "{http://maven.apache.org/POM/4.0.0}"
ASSETS = "assets/edgeproof/com.example.digits/"


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    return sample_payload(tmp_path_factory.mktemp("payload"))


@pytest.fixture(scope="module")
def package(payload: Payload) -> Package:
    return Android(group="com.example", ort=False).package(payload, None)


def aar_of(package: Package) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(package.files[package.archive]))


def properties_of(package: Package) -> dict[str, str]:
    lines = aar_of(package).read(f"{ASSETS}model.properties").decode("ascii").splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_package_is_a_maven_repository_with_all_checksums(package: Package) -> None:
    assert package.archive == f"{FOLDER}0.1.0/digits-0.1.0.aar"
    assert package.use == 'implementation("com.example:digits:0.1.0")'
    files = ("0.1.0/digits-0.1.0.aar", "0.1.0/digits-0.1.0.pom", "0.1.0/digits-0.1.0-sources.jar", "maven-metadata.xml")
    sums = {f"{FOLDER}{file}.{name}" for file in files for name in ("md5", "sha1", "sha256", "sha512")}
    assert package.files.keys() == {"README.md", *(FOLDER + file for file in files), *sums}
    for path in sums:
        file, _, name = path.rpartition(".")
        assert package.files[path].decode() == hashlib.new(name, package.files[file]).hexdigest()


def test_pom_and_metadata_say_what_gradle_asks(package: Package) -> None:
    pom = ElementTree.fromstring(package.files[f"{FOLDER}0.1.0/digits-0.1.0.pom"])
    found = [pom.findtext(POM + name) for name in ("groupId", "artifactId", "version", "packaging")]
    assert found == ["com.example", "digits", "0.1.0", "aar"]
    assert [each.text for each in pom.iterfind(f".//{POM}dependency/")] == [
        "com.microsoft.onnxruntime",
        "onnxruntime-android",
        "1.30.0",
        "runtime",
    ]
    metadata = ElementTree.fromstring(package.files[f"{FOLDER}maven-metadata.xml"])
    assert metadata.findtext("versioning/release") == "0.1.0"
    assert metadata.findtext("versioning/lastUpdated") == "20260301123743"  # the report's 13:37:43+01:00


def test_aar_has_what_android_asks_and_the_app_gets_what_it_reads_alone(package: Package) -> None:
    with aar_of(package) as aar:
        names = set(aar.namelist())
        assert {entry.compress_type for entry in aar.infolist()} == {zipfile.ZIP_STORED}
        manifest = ElementTree.fromstring(aar.read("AndroidManifest.xml"))
    top = {"AndroidManifest.xml", "classes.jar", "R.txt", "proguard.txt"}
    assert top | {"META-INF/com/android/build/gradle/aar-metadata.properties"} <= names
    assert manifest.get("package") == "com.example.digits"
    read = {"model.onnx", "model.properties", "labels.txt", "golden.json", "golden/images.bin", "golden/logits.bin"}
    assert {name for name in names if name.startswith("assets/")} == {
        ASSETS + name for name in (*read, "manifest.json")
    }


def test_aar_verifies_as_one_file(package: Package) -> None:
    verification = verify_bytes(package.files[package.archive])
    assert verification.differences == ()
    assert verification.manifest is not None
    assert (verification.manifest.platform, verification.manifest.model) == ("android", f"{ASSETS}model.onnx")


def test_constants_of_the_wrapper_are_the_manifests_and_its_digests_the_files(
    package: Package, payload: Payload
) -> None:
    properties, interface = properties_of(package), payload.manifest.interface
    scale = np.array(properties["input.scale"].split(","), np.float32)
    assert (scale == np.array(interface.processing.scale, np.float32)).all()
    assert [properties[f"input.{name}"] for name in ("layout", "height", "width", "channels")] == [
        "float32_nchw",
        "5",
        "4",
        "3",
    ]
    with aar_of(package) as aar:
        for name in ("model.onnx", "labels.txt", "golden/images.bin", "golden/logits.bin"):
            assert properties[f"sha256.{name}"] == hashlib.sha256(aar.read(ASSETS + name)).hexdigest()
        digest = hashlib.sha256(aar.read(f"{ASSETS}model.properties")).hexdigest()
        with zipfile.ZipFile(io.BytesIO(aar.read("classes.jar"))) as classes:
            assert digest.encode() in classes.read("com/example/digits/Release.class")


@pytest.mark.slow
def test_an_app_gets_the_file_that_it_loads_and_the_other_stays_in_the_aar(payload: Payload) -> None:
    pytest.importorskip("onnxruntime")
    for loads, other in (("onnx", "model.ort"), ("ort", "model.onnx")):
        package = Android(group="com.example", loads=loads).package(payload, None)
        names = aar_of(package).namelist()
        assert {f"{ASSETS}model.{loads}", f"META-INF/edgeproof/{other}"} <= set(names)
        assert "META-INF/edgeproof/required_operators_and_types.config" in names
        assert properties_of(package)["model.file"] == f"model.{loads}"
        assert verify_bytes(package.files[package.archive]).differences == ()


def test_package_says_what_was_not_executed(package: Package) -> None:
    readme = package.files["README.md"].decode()
    assert aar_of(package).read("META-INF/edgeproof/README.md").decode() == readme
    for limit in (
        "inference was compiled, not executed: no Android here",
        "not measured on android: the verdict (pass)",
    ):
        assert any(limit in each for each in package.limits)
        assert limit[1:] in readme


@pytest.mark.parametrize(
    ("name", "version", "refusal"),
    [
        ("digits", "0.1.0", None),
        ("Digits-2.x", "0.1.0-rc.1", None),
        ("a..b", "0.1.0", 'a name that Maven takes: .* got "a..b"; set artifact for the platform android'),
        ("digits.", "0.1.0", 'a name that Maven takes: .* got "digits."'),
        ("digits", "0.1.0+7", 'a version without "\\+", .* got "0.1.0\\+7"; change the recipe\'s version'),
        ("digits", "0.1.0-SNAPSHOT", 'a version that stays .* got "0.1.0-SNAPSHOT"'),
    ],
)
def test_what_maven_would_refuse_or_misread_is_refused(name: str, version: str, refusal: str | None) -> None:
    found = Android().refusal(name, version)
    if refusal is None:
        assert found is None
    else:
        assert found is not None
        assert re.match(f"expected {refusal}", found), found


def test_another_artifact_stands_in_for_a_name_that_maven_refuses() -> None:
    assert Android(artifact="digits").refusal("a..b", "0.1.0") is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"group": "com.1example"}, "group"),
        ({"artifact": "../digits"}, "artifact"),
        ({"onnxruntime": "1.19.2"}, 'expected 1.20.0 or newer, .*; got "1.19.2"'),
        ({"onnxruntime": "latest"}, "onnxruntime"),
        ({"abis": []}, "abis"),
        ({"abis": ["x86", "x86"]}, "expected each of them once; got x86, x86"),
        ({"providers": ["cuda"]}, "providers"),
        ({"ort": False, "loads": "ort"}, 'loads: expected "onnx" where ort = false; got "ort"'),
    ],
)
def test_a_field_that_android_has_no_use_for_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Android.model_validate_json(json.dumps({"kind": "android", **fields}))


def test_properties_are_written_as_java_reads_them() -> None:
    written = properties_bytes({"b": " größer\\\n😀", "a": "x = y: #1"})
    assert written == b"a=x = y: #1\nb=\\ gr\\u00f6\\u00dfer\\\\\\u000a\\ud83d\\ude00\n"


def test_names_in_xml_are_escaped(tmp_path: Path) -> None:
    payload = sample_payload(tmp_path, licence="A&B <licence>")
    package = Android(ort=False).package(payload, None)
    pom = next(package.files[path] for path in package.files if path.endswith(".pom"))
    assert ElementTree.fromstring(pom).findtext(f"{POM}licenses/{POM}license/{POM}name") == "A&B <licence>"
