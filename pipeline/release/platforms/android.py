"""Android: an AAR in a folder that Gradle takes as a Maven repository. Rule: what the app does not read is not in it.

The wrapper's classes are compiled once and kept in the project (android/, `make android-classes`); a model's constants
are in model.properties beside it, whose digest is written into the model's own copy of the classes.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from pipeline.parts import RecipePart
from pipeline.release.archive import lay_out, parse_time
from pipeline.release.bill import Library
from pipeline.release.constants import WrapperConstants, constants_of
from pipeline.release.manifest import LABELS
from pipeline.release.payload import Package, Payload
from pipeline.release.platforms.android_classes import Relocation, java_package
from pipeline.release.platforms.android_maven import Coordinates, maven_tree
from pipeline.release.platforms.reduced_build import OPERATORS, ORT_MODEL, reduced_build_files
from pipeline.release.platforms.templates import read, render
from pipeline.release.seal import seal
from pipeline.release.signing import Signer

Abi = Literal["arm64-v8a", "armeabi-v7a", "x86_64", "x86"]
Provider = Literal["xnnpack", "nnapi", "cpu"]

EVIDENCE = "META-INF/edgeproof/"
"""What lies here is in the AAR, and no longer in the app."""
REPOSITORY = "maven/"
PROPERTIES = "model.properties"
RUNTIME_URL = "pkg:maven/com.microsoft.onnxruntime/onnxruntime-android"
_GROUP = r"^[A-Za-z][A-Za-z0-9_-]*(\.[A-Za-z][A-Za-z0-9_-]*)*$"
_TAKEN = ("java", "javax", "android", "androidx")
"""First words of packages that only the platform itself may define classes in."""
_ARTIFACT = r"^[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$"
_FIRST_WITH_BUFFERS = (1, 20)
"""Of ONNX Runtime: its Java API takes a model that is mapped into memory since then (its pull request 20062)."""


class Android(RecipePart):
    """An AAR with its Maven repository: `implementation("GROUP:ARTIFACT:VERSION")`."""

    kind: Literal["android"] = "android"
    """Which platform."""
    group: str = Field(default="edgeproof", pattern=_GROUP, max_length=100, examples=["com.example"])
    """Maven's group: the reversed domain of who publishes it. With the artifact it is the Java package, too."""
    artifact: str | None = Field(default=None, pattern=_ARTIFACT, max_length=100, examples=["digits"])
    """Maven's artifact; the recipe's name if left out."""
    min_sdk: int = Field(default=24, ge=21, le=99)
    """Oldest API level of an app that takes it; ONNX Runtime asks for one of its own (1.24: 24)."""
    abis: tuple[Abi, ...] = Field(default=("arm64-v8a", "x86_64"), min_length=1)
    """Processors that it runs on, of those that ONNX Runtime has libraries for: elsewhere it refuses to load."""
    providers: tuple[Provider, ...] = Field(default=("cpu",), min_length=1)
    """What computes, the preferred first; what a build of ONNX Runtime lacks is passed over. The verdict was measured
    with `cpu`."""
    onnxruntime: str = Field(default="1.30.0", pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$", examples=["1.22.0"])
    """Version of com.microsoft.onnxruntime:onnxruntime-android, which not every version of ONNX Runtime has; 1.20.0 or
    newer."""
    ort: bool = True
    """Whether it carries model.ort and its operators too, for builds of ONNX Runtime with no other operators."""
    loads: Literal["onnx", "ort"] = "onnx"
    """Which of the two the app loads; only that one is in the app."""

    @field_validator("onnxruntime")
    @classmethod
    def _takes_buffers(cls, version: str) -> str:
        if tuple(map(int, version.split(".")[:2])) < _FIRST_WITH_BUFFERS:
            raise ValueError(
                f'expected 1.20.0 or newer, which loads a model that is mapped into memory; got "{version}"'
            )
        return version

    @field_validator("abis", "providers")
    @classmethod
    def _once_each(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError(f"expected each of them once; got {', '.join(names)}")
        return names

    @model_validator(mode="after")
    def _has_what_it_loads(self) -> "Android":
        if self.loads == "ort" and not self.ort:
            raise ValueError('loads: expected "onnx" where ort = false; got "ort"')
        return self

    @field_validator("group")
    @classmethod
    def _is_no_platforms(cls, group: str) -> str:
        if group.split(".")[0] in _TAKEN:
            raise ValueError(
                f"expected a group that does not begin with {', '.join(_TAKEN)}, whose classes Java and Android keep "
                f'to themselves; got "{group}"'
            )
        return group

    def refusal(self, name: str, version: str) -> str | None:
        """Return why Maven or Gradle would refuse the name or the version, or take them for something else."""
        if self.artifact is None and re.fullmatch(_ARTIFACT, name) is None:
            return (
                'expected a name that Maven takes: letters, digits, "_", "-", and "." between them; '
                f'got "{name}"; set artifact for the platform android'
            )
        if "+" in version:
            return (
                'expected a version without "+", which Gradle takes for "any that begins so"; '
                f'got "{version}"; change the recipe\'s version'
            )
        if version.upper().endswith("-SNAPSHOT"):
            return (
                "expected a version that stays what it is; Maven replaces those that end with -SNAPSHOT; "
                f'got "{version}"; change the recipe\'s version'
            )
        return None

    def package(self, payload: Payload, signer: Signer | None) -> Package:
        """Return a Maven repository with the AAR, its POM and its sources, and a README beside it."""
        wrapper = _Wrapper.of(self, payload)
        created_at = parse_time(payload.manifest.created_at)
        libraries = (Library("onnxruntime-android", self.onnxruntime, RUNTIME_URL, "MIT"),)
        aar = seal(
            wrapper.files(payload),
            payload,
            platform=self.kind,
            root=wrapper.assets,
            model=(EVIDENCE if self.loads == "ort" else wrapper.assets) + payload.manifest.model,
            evidence=EVIDENCE,
            libraries=libraries,
            signer=signer,
        )
        sources = b"".join(piece.data for piece in lay_out(wrapper.relocation.sources(), created_at))
        contents = {".aar": aar, ".pom": wrapper.render("pom.xml.jinja"), "-sources.jar": sources}
        tree = maven_tree(wrapper.coordinates, contents, created_at)
        return Package(
            self.kind,
            {**{REPOSITORY + path: tree[path] for path in tree}, "README.md": wrapper.render("README.md.jinja")},
            archive=REPOSITORY + wrapper.coordinates.file(".aar"),
            use=f'implementation("{wrapper.coordinates}")',
            limits=wrapper.limits,
            libraries=libraries,
        )


@dataclass(frozen=True)
class _Wrapper:
    """The AAR of one model."""

    platform: Android
    constants: WrapperConstants
    coordinates: Coordinates
    licence: str | None
    reduced: dict[str, bytes]
    """model.ort and its operators by name, where they are asked for."""
    properties: bytes

    @classmethod
    def of(cls, platform: Android, payload: Payload) -> "_Wrapper":
        constants, manifest = constants_of(payload.manifest), payload.manifest
        reduced = reduced_build_files(payload, "arm") if platform.ort else {}
        return cls(
            platform=platform,
            constants=constants,
            coordinates=Coordinates(platform.group, platform.artifact or constants.name, constants.version),
            licence=manifest.licences.model,
            reduced=reduced,
            properties=_properties(platform, constants, payload, reduced),
        )

    @property
    def java_package(self) -> str:
        return java_package(self.coordinates.group, self.coordinates.artifact)

    @property
    def folder(self) -> str:
        """Of the release among an app's assets: no other model's, also in an app with several."""
        return f"edgeproof/{self.java_package}/"

    @property
    def assets(self) -> str:
        return f"assets/{self.folder}"

    @property
    def relocation(self) -> Relocation:
        digest = hashlib.sha256(self.properties).hexdigest()
        return Relocation(self.java_package, {"@folder@": self.folder, "@properties_sha256@": digest})

    @property
    def limits(self) -> tuple[str, ...]:
        version, measured = self.platform.onnxruntime, self.constants.runtime
        return (
            "inference was compiled, not executed: no Android here",
            self.constants.not_measured("android"),
            f"version {version} of onnxruntime-android was not run: the verdict is of {measured}",
        )

    def files(self, payload: Payload) -> dict[str, bytes]:
        """Return all of the AAR but what every package carries of the release."""
        created_at = parse_time(payload.manifest.created_at)
        classes = b"".join(piece.data for piece in lay_out(self.relocation.classes(), created_at))
        reduced = {
            (self.assets if name == ORT_MODEL and self.platform.loads == "ort" else EVIDENCE) + name: content
            for name, content in self.reduced.items()
        }
        return {
            "AndroidManifest.xml": self.render("AndroidManifest.xml.jinja"),
            "META-INF/com/android/build/gradle/aar-metadata.properties": read("android/aar-metadata.properties"),
            "R.txt": b"",  # no resources
            "classes.jar": classes,
            "proguard.txt": read("android/proguard.txt"),
            EVIDENCE + "README.md": self.render("README.md.jinja"),
            self.assets + PROPERTIES: self.properties,
            **reduced,
        }

    def render(self, template: str) -> bytes:
        """Return a template of android/, rendered."""
        return render(
            f"android/{template}",
            c=self.constants,
            platform=self.platform,
            coordinates=self.coordinates,
            java_package=self.java_package,
            folder=self.folder,
            licence=self.licence,
            limits=self.limits,
            has_ort=bool(self.reduced),
            ort_model=ORT_MODEL,
            operators=OPERATORS,
        )


def _properties(platform: Android, constants: WrapperConstants, payload: Payload, reduced: dict[str, bytes]) -> bytes:
    """Return what the wrapper reads: constants, and the digest of every file that it reads after this one."""
    manifest, golden = payload.manifest, payload.golden
    budget, latency = manifest.budget, manifest.latency
    model = ORT_MODEL if platform.loads == "ort" else manifest.model
    loaded = {**payload.files, **reduced}
    digests = {
        f"sha256.{name}": hashlib.sha256(loaded[name]).hexdigest()
        for name in (model, LABELS, golden.inputs.file, golden.outputs.file)
    }
    return properties_bytes(
        {
            "name": constants.name,
            "version": constants.version,
            "model.file": model,
            "input.name": constants.input_name,
            "input.layout": constants.layout,
            "input.batch": str(constants.batch or 1),
            "input.height": str(constants.height),
            "input.width": str(constants.width),
            "input.channels": str(constants.channels),
            "input.scale": _float32(constants.scale),
            "input.bias": _float32(constants.bias),
            "output.name": constants.output_name,
            "output.activation": constants.activation,
            "labels.file": LABELS,
            "golden.samples": str(golden.samples),
            "golden.images": golden.inputs.file,
            "golden.outputs": golden.outputs.file,
            "latency.scope": budget.latency.scope if budget and budget.latency else "model",
            "runtime.threads": str(latency.threads if latency else 1),
            "runtime.providers": ",".join(platform.providers),
            "runtime.abis": ",".join(platform.abis),
            "evidence": constants.not_measured("android"),
            **digests,
        }
    )


def properties_bytes(properties: dict[str, str]) -> bytes:
    """Return properties as java.util.Properties reads them: sorted, ASCII."""
    return "".join(f"{key}={_escaped(properties[key])}\n" for key in sorted(properties)).encode("ascii")


def _escaped(value: str) -> str:
    """Return a value with everything escaped that Java would take for something else."""
    units = value.encode("utf-16-be")
    characters = [chr(int.from_bytes(units[at : at + 2])) for at in range(0, len(units), 2)]
    escaped = [
        f"\\{each}" if each == "\\" else each if " " <= each <= "~" else f"\\u{ord(each):04x}" for each in characters
    ]
    return ("\\" if value.startswith(" ") else "") + "".join(escaped)


def _float32(values: tuple[float, ...]) -> str:
    """Return the values as float32 has them, in digits that Java reads back to the same."""
    return ",".join(repr(float(np.float32(value))) for value in values)
