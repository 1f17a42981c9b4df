"""An Android package in the hands of real tools: javac, a JVM, Gradle, aapt2, zipalign, apksigner. Rule: no network.

What Android and ONNX Runtime would do is played by hand-written doubles (tests/pipeline/android_doubles), so the model
itself is never executed here.
"""

import shutil
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from pipeline.release.archive import lay_out
from pipeline.release.constants import constants_of
from pipeline.release.golden import golden_array
from pipeline.release.payload import Package, Payload
from pipeline.release.platforms.android_classes import TEMPLATE, Relocation, java_package
from pipeline.release.platforms.android_maven import Coordinates, maven_tree

ROOT = Path(__file__).parents[1]
DOUBLES = ROOT / "tests" / "pipeline" / "android_doubles"
ANDROID = ROOT / "pipeline" / "release" / "platforms" / "android"
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
TIMEOUT_S = 300

MAIN = f"""
import {TEMPLATE}.Classifier;
import {TEMPLATE}.Model;
import {TEMPLATE}.ModelException;
import {TEMPLATE}.Score;
import android.content.Context;
import android.content.res.AssetManager;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.Arrays;

public class Main extends Context {{
    @Override
    public AssetManager getAssets() {{
        return new AssetManager();
    }}

    public static void main(String[] arguments) throws Exception {{
        try (Classifier model = Model.load(new Main())) {{
            System.out.println("loaded " + model.name() + " " + model.version() + ", " + model.runtime());
            System.out.println("evidence " + model.evidence());
            byte[] images = Files.readAllBytes(Paths.get(arguments[0]));
            int size = model.height() * model.width() * model.channels();
            for (int at = 0; at < images.length; at += size) {{
                StringBuilder line = new StringBuilder("scores");
                for (Score score : model.classify(Arrays.copyOfRange(images, at, at + size))) {{
                    line.append(' ').append(score.index).append(' ').append(score.score);
                }}
                System.out.println(line);
            }}
            System.out.println("self_test " + model.selfTest(20, 2));
        }} catch (ModelException error) {{
            System.out.println("refused " + error.getClass().getSimpleName() + ": " + error.getMessage());
        }}
    }}
}}
"""
"""An app: loads the model, classifies every image of a file, and tests itself."""


def missing(*programs: str) -> str | None:
    """Return which of these programs are not installed, as a sentence; None where all are."""
    absent = [program for program in programs if shutil.which(program) is None]
    return (
        f"needs {', '.join(absent)}: apt-get install default-jdk-headless gradle aapt zipalign apksigner"
        if absent
        else None
    )


def execute(command: Sequence[str | Path], folder: Path, timeout_s: float = TIMEOUT_S) -> str:
    """Return what a program printed; raises CalledProcessError with all of it where it fails."""
    done = subprocess.run(
        [str(each) for each in command], cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def compile_java(
    sources: Sequence[Path], out: Path, classpath: Sequence[Path] = (), source_path: Path | None = None
) -> None:
    """Compile as the project's own classes are compiled (`make android-classes`)."""
    out.mkdir(parents=True, exist_ok=True)
    options: list[str | Path] = ["--release", "8", "-Xlint:all,-options,-processing", "-Werror", "-g:source,lines"]
    options += ["-implicit:none", "-proc:none", "-d", out]
    options += ["-cp", ":".join(map(str, classpath))] if classpath else []
    options += ["-sourcepath", source_path] if source_path else []
    execute(["javac", *options, *sources], out)


@dataclass(frozen=True)
class App:
    """A program for the JVM that uses the classes of an AAR as an app would, on doubles of Android and the runtime."""

    folder: Path
    payload: Payload

    @classmethod
    def build(cls, folder: Path, payload: Payload, aar: bytes, java_package: str) -> "App":
        """Compile the app against classes.jar of the AAR, and the doubles beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "app.aar").write_bytes(aar)
        with zipfile.ZipFile(folder / "app.aar") as archive:
            (folder / "classes.jar").write_bytes(archive.read("classes.jar"))
        (folder / "Main.java").write_text(Relocation(java_package, {}).rewrite_source(MAIN))
        compile_java([folder / "Main.java", *sorted(DOUBLES.rglob("*.java"))], folder / "app", [folder / "classes.jar"])
        return cls(folder, payload)

    def run(
        self, archive: Path, answers: np.ndarray | None = None, *, classify: bool = True, abi: str = "arm64-v8a"
    ) -> "Ran":
        """Run the app on the assets of an archive, with answers of the runtime other than the golden ones if given."""
        golden, constants = self.payload.golden, constants_of(self.payload.manifest)
        images = golden_array(golden.inputs, self.payload.files)
        processing = self.payload.manifest.interface.processing
        inputs = [processing.preprocess(image[None]) for image in images]
        batch = constants.batch or 1
        padded = [np.concatenate([each, np.zeros((batch - 1, *each.shape[1:]), each.dtype)]) for each in inputs]
        outputs = golden_array(golden.outputs, self.payload.files) if answers is None else answers
        (self.folder / "images").write_bytes(images.tobytes() if classify else b"")
        (self.folder / "inputs").write_bytes(
            b"".join(each.astype(each.dtype.newbyteorder("<")).tobytes() for each in padded)
        )
        (self.folder / "outputs").write_bytes(outputs.astype("<f4").tobytes())
        settings = {
            "archive": archive,
            "abi": abi,
            "inputs": "inputs",
            "outputs": "outputs",
            "outputBytes": 4 * outputs.shape[1],
        }
        options = [f"-Ddouble.{name}={value}" for name, value in settings.items()]
        classpath = ":".join(str(self.folder / each) for each in ("classes.jar", "app"))
        printed = execute(["java", "-Xshare:auto", *options, "-cp", classpath, "Main", "images"], self.folder)
        return Ran(printed.splitlines())


@dataclass(frozen=True)
class Ran:
    """What the app printed."""

    lines: list[str]

    def said(self, word: str) -> list[str]:
        """Return the rest of the lines that begin with `word`."""
        return [line.removeprefix(f"{word} ") for line in self.lines if line.startswith(f"{word} ")]

    @property
    def refused(self) -> str:
        """Why the model was not loaded; empty where it was."""
        return "".join(self.said("refused"))

    def scores(self, num_classes: int) -> np.ndarray:
        """Return the score of each class of each image, float64 (N, K), and check that the best come first."""
        rows = []
        for line in self.said("scores"):
            pairs = np.array(line.split(), float).reshape(-1, 2)
            assert (np.diff(pairs[:, 1]) <= 0).all(), line
            row = np.full(num_classes, np.nan)
            row[pairs[:, 0].astype(int)] = pairs[:, 1]
            rows.append(row)
        return np.array(rows)


def altered(archive: Path, out: Path, changes: Mapping[str, bytes | None], *, compress: bool = False) -> Path:
    """Write the archive with some files exchanged or added, or left out where None."""
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(out, "w", method) as copy:
        for name in dict.fromkeys((*source.namelist(), *changes)):
            content = changes[name] if name in changes else source.read(name)
            if content is not None:
                copy.writestr(name, content)
    return out


def write_package(package: Package, folder: Path) -> Path:
    """Write a package to a folder, and return the path of its archive."""
    for name, content in package.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / package.archive


GRADLE_PROJECT = """
apply plugin: 'java'
sourceCompatibility = 1.8
repositories {{
    maven {{ url '{repository}' }}
    maven {{ url '{doubles}' }}
}}
configurations {{ released }}
dependencies {{
    released '{coordinates}'
    compile files({{
        configurations.released.collect {{ zipTree(it).matching {{ include 'classes.jar' }}.singleFile }}
    }})
}}
task fetch {{
    doLast {{
        configurations.released.resolvedConfiguration.resolvedArtifacts.each {{ println "${{it.id}} ${{it.file}}" }}
    }}
}}
"""
"""Two folders as repositories: the package's, and one that stands for Maven Central."""


def gradle_resolves(folder: Path, repository: Path, coordinates: Coordinates, runtime: Coordinates) -> list[str]:
    """Let Gradle take the AAR from the package's repository, and compile the app against it.

    Returns what it resolved, `ID FILE` each: the AAR, and the runtime that its POM asks for.
    """
    doubles, app = folder / "doubles", folder / "app"
    for path, content in maven_tree(runtime, _doubles_aar(folder, runtime), datetime.now(UTC)).items():
        (doubles / path).parent.mkdir(parents=True, exist_ok=True)
        (doubles / path).write_bytes(content)
    (app / "src" / "main" / "java").mkdir(parents=True)
    package = java_package(coordinates.group, coordinates.artifact)
    (app / "src" / "main" / "java" / "Main.java").write_text(Relocation(package, {}).rewrite_source(MAIN))
    project = GRADLE_PROJECT.format(repository=repository, doubles=doubles, coordinates=coordinates)
    (app / "build.gradle").write_text(project)
    command: list[str | Path] = [
        "gradle",
        "--no-daemon",
        "--offline",
        "--gradle-user-home",
        folder / "home",
        "-q",
        "classes",
        "fetch",
    ]
    printed = execute(command, app)
    assert (app / "build" / "classes" / "java" / "main" / "Main.class").is_file(), printed
    return [line for line in printed.splitlines() if line.endswith(".aar")]


def _doubles_aar(folder: Path, runtime: Coordinates) -> dict[str, bytes]:
    """Return what stands for ONNX Runtime's own AAR and POM, by how they end."""
    compile_java(sorted(DOUBLES.rglob("*.java")), folder / "runtime")
    classes = {
        str(path.relative_to(folder / "runtime")): path.read_bytes() for path in (folder / "runtime").rglob("*.class")
    }
    pom = f"""<project><modelVersion>4.0.0</modelVersion><groupId>{runtime.group}</groupId>
<artifactId>{runtime.artifact}</artifactId><version>{runtime.version}</version><packaging>aar</packaging></project>"""
    return {".aar": _zip({"classes.jar": _zip(classes)}), ".pom": pom.encode()}


def _zip(files: Mapping[str, bytes]) -> bytes:
    return b"".join(piece.data for piece in lay_out(files, datetime.now(UTC)))


def build_apk(folder: Path, aar: Path) -> Path:
    """Return an APK, linked by aapt2 from manifest and assets of an AAR, aligned by zipalign and signed by apksigner.

    Raises RuntimeError with what a tool said where it refuses.
    """
    folder.mkdir(parents=True)
    with zipfile.ZipFile(aar) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith(("assets/", "AndroidM"))])
    linked, aligned = folder / "linked.apk", folder / "app.apk"
    link: list[str | Path] = ["aapt2", "link", "-o", linked, "-I", FRAMEWORK, "-A", folder / "assets"]
    link += ["-0", ".onnx", "-0", ".ort"]  # without the dot, aapt2 2.19 compresses assets all the same
    execute([*link, "--manifest", folder / "AndroidManifest.xml"], folder)
    execute(["zipalign", "-p", "4", linked, aligned], folder)
    keys = ["-keystore", "keys", "-storepass", "secret", "-alias", "key"]
    execute(["keytool", "-genkeypair", *keys, "-keyalg", "EC", "-dname", "CN=test", "-keypass", "secret"], folder)
    execute(["apksigner", "sign", "--ks", "keys", "--ks-pass", "pass:secret", aligned], folder)
    execute(["zipalign", "-c", "4", aligned], folder)
    execute(["apksigner", "verify", aligned], folder)
    return aligned
