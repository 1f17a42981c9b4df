"""An Android package of a release in the hands of app teams' tools: what each did with it, and how long it took.

Run: PYTHONPATH=. .venv/bin/python benchmarks/android_check.py RELEASE.zip
(`apt-get install default-jdk-headless gradle aapt zipalign apksigner android-framework-res`; a row whose tools are
absent says so.) The table goes to build/bench/android.json too. The model itself is not executed: Android and ONNX
Runtime are played by doubles that answer the golden inputs, byte for byte, with the golden outputs.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.android_lab import (
    ANDROID,
    DOUBLES,
    FRAMEWORK,
    App,
    altered,
    build_apk,
    compile_java,
    gradle_resolves,
    missing,
    write_package,
)
from pipeline.release.golden import golden_array
from pipeline.release.manifest import LABELS
from pipeline.release.payload import Package, Payload, read_payload
from pipeline.release.platforms.android import PROPERTIES, REPOSITORY, Android
from pipeline.release.platforms.android_classes import java_package
from pipeline.release.platforms.android_maven import Coordinates
from pipeline.release.self_test import SelfTest
from pipeline.release.verify import verify_bytes

OUT = Path("build/bench/android.json")
PLATFORM = Android()
RUNTIME = Coordinates("com.microsoft.onnxruntime", "onnxruntime-android", PLATFORM.onnxruntime)


class Failed(Exception):
    """A tool did otherwise than it must."""


@dataclass(frozen=True)
class Row:
    """What one check found."""

    check: str
    passed: bool | None
    """None where it could not be done here."""
    found: str
    seconds: float


@dataclass(frozen=True)
class Lab:
    """A package on disk, and what it was made of."""

    folder: Path
    release: Path
    payload: Payload
    package: Package
    aar: Path

    @classmethod
    def of(cls, folder: Path, release: Path) -> "Lab":
        """Package a release."""
        payload = read_payload(release)
        package = PLATFORM.package(payload, None)
        return cls(folder, release, payload, package, write_package(package, folder / "package"))

    @property
    def coordinates(self) -> Coordinates:
        """Of the AAR."""
        return Coordinates(PLATFORM.group, self.payload.manifest.name, self.payload.manifest.version)

    @property
    def java_package(self) -> str:
        """Of its classes."""
        return java_package(self.coordinates.group, self.coordinates.artifact)

    @property
    def assets(self) -> str:
        """Folder of what the app gets."""
        return f"assets/edgeproof/{self.java_package}/"


def twice(lab: Lab) -> str:
    """The same release gives the same bytes."""
    if PLATFORM.package(read_payload(lab.release), None) != lab.package:
        raise Failed("another package of the same release")
    sizes = sum(map(len, lab.package.files.values())), lab.aar.stat().st_size, len(lab.payload.model)
    digest = hashlib.sha256(lab.aar.read_bytes()).hexdigest()
    return f"two packagings equal; bytes: {sizes[0]} in all, AAR {sizes[1]}, model {sizes[2]}; AAR {digest[:16]}..."


def verified(lab: Lab) -> str:
    """Our own verification of the AAR."""
    if differences := verify_bytes(lab.aar.read_bytes()).differences:
        raise Failed("; ".join(map(str, differences)))
    return "every byte as the manifest says"


def committed(lab: Lab) -> str:
    """The committed classes are what javac makes of the sources; needs the javac that made them."""
    out = lab.folder / "classes"
    compile_java(sorted((ANDROID / "java").glob("*.java")), out, source_path=DOUBLES)
    return compare(out, class_files(ANDROID / "classes"))


def rewritten(lab: Lab) -> str:
    """The package's sources compile to the package's classes."""
    with zipfile.ZipFile(lab.folder / "package" / REPOSITORY / lab.coordinates.file("-sources.jar")) as sources:
        sources.extractall(lab.folder / "sources")
    with zipfile.ZipFile(lab.aar) as aar, aar.open("classes.jar") as jar, zipfile.ZipFile(jar) as classes:
        expected = {name: classes.read(name) for name in classes.namelist()}
    out = lab.folder / "rewritten"
    compile_java(sorted((lab.folder / "sources").rglob("*.java")), out, source_path=DOUBLES)
    return compare(out, expected)


def class_files(folder: Path) -> dict[str, bytes]:
    """Return all class files below a folder by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.class")}


def compare(out: Path, expected: dict[str, bytes]) -> str:
    """Compare class files with those that were expected."""
    found = class_files(out)
    if found != expected:
        other = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise Failed(f"other bytes in {', '.join(other)} (made by another javac?)")
    return f"{len(found)} classes, equal byte for byte"


def on_jvm(lab: Lab) -> str:
    """Pixels and scores of the golden answers, and the self-test, on a JVM."""
    ran = app_of(lab).run(lab.aar)
    logits = golden_array(lab.payload.golden.outputs, lab.payload.files).astype(float)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    softmax = lab.payload.manifest.interface.processing.activation == "softmax"
    expected = powers / powers.sum(1, keepdims=True) if softmax else logits
    if ran.refused:
        raise Failed(ran.refused)
    largest = np.abs(ran.scores(expected.shape[1]) - expected).max()
    test = SelfTest.model_validate_json(ran.said("self_test")[0])
    if largest > 1e-6 or test.golden.largest_difference != 0 or not test.golden.labels_equal:
        raise Failed(f"scores off by {largest}, self-test {test.golden}")
    return f"{len(logits)} inputs equal NumPy's to the bit, scores within {largest:.1e}, self-test read by the gate"


def tampered(lab: Lab) -> str:
    """One bit of each file that the wrapper reads, turned."""
    golden, app, refused = lab.payload.golden, app_of(lab), []
    for name in (lab.payload.manifest.model, LABELS, PROPERTIES, golden.inputs.file, golden.outputs.file):
        with zipfile.ZipFile(lab.aar) as aar:
            content = bytearray(aar.read(lab.assets + name))
        content[len(content) // 2] ^= 1
        archive = altered(lab.aar, lab.folder / "tampered.aar", {lab.assets + name: bytes(content)})
        ran = app.run(archive)
        if not ran.refused.startswith(f"TamperedException: {name}: expected sha256 "):
            raise Failed(f"{name}: {ran.lines}")
        if name == lab.payload.manifest.model and ran.said("options"):
            raise Failed("the runtime was asked before the digest")
        refused.append(name)
    return f"refused, the model before the runtime got it: {', '.join(refused)}"


def by_gradle(lab: Lab) -> str:
    """Debian's Gradle resolves the coordinates from the folder, and compiles an app against the AAR."""
    resolved = gradle_resolves(lab.folder / "project", lab.folder / "package" / REPOSITORY, lab.coordinates, RUNTIME)
    found = [line.split(" ")[1] for line in resolved]
    if found != [f"({lab.coordinates})", f"({RUNTIME})"]:
        raise Failed(f"resolved {resolved}")
    return f"resolved {found[0]} and, for its POM, {found[1]} (of doubles); an app compiles against it"


def by_gradle_tampered(lab: Lab) -> str:
    """Gradle takes a changed AAR from a folder; the wrapper does not."""
    model = lab.assets + lab.payload.manifest.model
    content = bytearray(lab.payload.model)
    content[-1] ^= 1
    repository = lab.folder / "tampered"
    for path, each in lab.package.files.items():
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_bytes(each)
    changed = altered(lab.aar, repository / lab.package.archive, {model: bytes(content)})
    resolved = gradle_resolves(lab.folder / "fooled", repository / REPOSITORY, lab.coordinates, RUNTIME)
    refused = app_of(lab).run(changed).refused
    is_refused = refused.startswith("TamperedException: ") and verify_bytes(changed.read_bytes()).differences
    if not resolved or not is_refused:
        raise Failed(f"{resolved} {refused}")
    return "Gradle says nothing; the wrapper and `edgeproof verify` refuse it"


def by_aapt2(lab: Lab) -> str:
    """aapt2 links an APK of manifest and assets; zipalign and apksigner take it; the wrapper maps its model."""
    apk = build_apk(lab.folder / "apk", lab.aar)
    with zipfile.ZipFile(apk) as archive:
        entry = archive.getinfo(lab.assets + lab.payload.manifest.model)
    ran = app_of(lab).run(apk)
    if entry.compress_type != zipfile.ZIP_STORED or lab.payload.manifest.model in ran.said("copied") or ran.refused:
        raise Failed(f"method {entry.compress_type}; {ran.lines}")
    return f"linked, aligned, signed (verified): {apk.stat().st_size} bytes; model stored, and mapped by the wrapper"


def app_of(lab: Lab) -> App:
    """Compile the app against the package's classes."""
    return App.build(lab.folder / "app", lab.payload, lab.aar.read_bytes(), lab.java_package)


CHECKS: tuple[tuple[str, Callable[[Lab], str], tuple[str, ...]], ...] = (
    ("packed twice", twice, ()),
    ("edgeproof verify", verified, ()),
    ("javac: committed classes", committed, ("javac",)),
    ("javac: the package's sources", rewritten, ("javac",)),
    ("JVM: pixels, scores, self-test", on_jvm, ("javac", "java")),
    ("JVM: tampered files", tampered, ("javac", "java")),
    ("Gradle: resolve and compile", by_gradle, ("gradle", "javac")),
    ("Gradle: a tampered AAR", by_gradle_tampered, ("gradle", "javac", "java")),
    ("aapt2, zipalign, apksigner", by_aapt2, ("aapt2", "zipalign", "apksigner", "keytool", "javac", "java")),
)


def rows(lab: Lab) -> Iterator[Row]:
    """Do every check whose tools are here."""
    for name, check, programs in CHECKS:
        needs = missing(*programs)
        if needs is None and check is by_aapt2 and not FRAMEWORK.is_file():
            needs = "needs android-framework-res"
        if needs is not None:
            yield Row(name, None, needs, 0.0)
            continue
        started = time.monotonic()
        try:
            found, passed = check(lab), True
        except (Failed, RuntimeError) as error:
            found, passed = str(error), False
        yield Row(name, passed, found, time.monotonic() - started)
    yield Row("inference on Android", None, "compiled against the API, not executed: no Android here", 0.0)


def main() -> int:
    """Print and keep the table; 1 where a tool did otherwise than it must."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path, help="the archive of a release for ONNX Runtime")
    release = parser.parse_args().release
    words = {True: "passed", False: "FAILED", None: "not done"}
    found = []
    with tempfile.TemporaryDirectory() as name:
        for row in rows(Lab.of(Path(name), release)):
            print(f"{words[row.passed]:8} {row.check} ({row.seconds:.1f} s)\n         {row.found}", flush=True)
            found.append(row)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"release": release.name, "rows": [asdict(row) for row in found]}, indent=2) + "\n")
    return 1 if any(row.passed is False for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
