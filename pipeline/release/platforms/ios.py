"""iOS and macOS: a Swift package with its model as a resource. Rule: what no Mac compiled or ran is said to be so.

The folder and the zip archive hold the same files.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.parts import RecipePart
from pipeline.release.bill import Library
from pipeline.release.constants import WrapperConstants, constants_of
from pipeline.release.payload import Package, Payload
from pipeline.release.platforms.reduced_build import OPERATORS, reduced_build_files
from pipeline.release.platforms.templates import read, render
from pipeline.release.seal import seal
from pipeline.release.signing import Signer
from pipeline.release.zipped import read_zip

SOURCES = ("Classifier.swift", "Errors.swift", "Processing.swift", "Release.swift", "SelfTest.swift")
"""Of the wrapper: equal for every model."""
RUNTIME_URL = "pkg:swift/github.com/microsoft/onnxruntime-swift-package-manager"
"""Of ONNX Runtime's Swift package, without a version, for the bill of materials."""
TAKEN = frozenset(
    {
        "Any",
        "Classification",
        "Classifier",
        "ClassifierError",
        "Constants",
        "CryptoKit",
        "Foundation",
        "Golden",
        "GoldenAnswers",
        "OnnxRuntimeBindings",
        "OnnxRuntimeExtensions",
        "PackageDescription",
        "Processing",
        "Release",
        "Self",
        "SelfTest",
        "Swift",
        "XCTest",
    }
)
"""Of Swift, of what the package is built with, and of itself: a module of such a name would hide what it means."""
SEMANTIC = re.compile(
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(-(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)
"""semver.org 2.0.0, which SwiftPM takes tags by."""


def _is_module(name: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Za-z0-9_]*", name) or name in TAKEN:
        raise ValueError(
            "expected a Swift module of its own: a capital letter, then ASCII letters, digits and _, and no name that "
            f'the package or Swift has itself; got "{name}"'
        )
    return name


SystemVersion = Annotated[str, Field(pattern=r"^[1-9][0-9]*\.[0-9]+(\.[0-9]+)?$")]


class IOS(RecipePart):
    """A Swift package for iOS and macOS around ONNX Runtime's own."""

    kind: Literal["ios"] = "ios"
    """Which platform."""
    module: Annotated[str, AfterValidator(_is_module)] | None = Field(default=None, examples=["AcmeDigits"])
    """Name of the package and of its module; EdgeproofName, of the recipe's name, if left out."""
    onnxruntime: str = Field(default="1.24.2", pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")
    """Version of github.com/microsoft/onnxruntime-swift-package-manager, exactly; a tag of it."""
    minimum_ios: SystemVersion = "15.0"
    """Oldest iOS that the package runs on; ONNX Runtime's package 1.24 needs 15."""
    minimum_macos: SystemVersion = "14.0"
    """Oldest macOS that the package runs on; ONNX Runtime's package 1.24 needs 14."""
    ort: bool = True
    """Whether model.ort and its operators are in it too, for reduced builds of ONNX Runtime."""

    def refusal(self, name: str, version: str) -> str | None:
        """Return why SwiftPM would refuse the version; every name of a recipe gives a module."""
        if not SEMANTIC.fullmatch(version):
            return (
                f'expected a semantic version, as SwiftPM takes, like 1.2.3 or 1.2.3-rc.1; got "{version}"; '
                "change the recipe's version"
            )
        return None

    def package(self, payload: Payload, signer: Signer | None) -> Package:
        """Return the Swift package as a folder and as one archive."""
        constants = constants_of(payload.manifest)
        module = self.module or _module_of(constants.name)
        root = f"Sources/{module}/Release/"
        libraries = (Library("onnxruntime", self.onnxruntime, RUNTIME_URL, "MIT"),)
        sealed = seal(
            self._files(payload, constants, module, root),
            payload,
            platform=self.kind,
            root=root,
            model=f"{root}model.onnx",
            libraries=libraries,
            signer=signer,
        )
        archive = f"{module}-{constants.version}.zip"
        folder = {f"{module}/{path}": content for path, content in read_zip(sealed).files.items()}
        use = f'.package(path: "../{module}"), .product(name: "{module}", package: "{module}")'
        return Package(
            self.kind,
            {**folder, archive: sealed},
            archive=archive,
            use=use,
            limits=self._limits(constants),
            libraries=libraries,
        )

    def _files(self, payload: Payload, constants: WrapperConstants, module: str, root: str) -> dict[str, bytes]:
        sources, tests = f"Sources/{module}", f"Tests/{module}Tests"
        about = {"c": constants, "module": module, "platform": self.kind, "golden": payload.golden}
        said = {"licence": payload.manifest.licences.model, "limits": self._limits(constants), "operators": OPERATORS}
        values = {**self.model_dump(exclude={"kind", "module"}), **about, **said}
        reduced = reduced_build_files(payload, "arm") if self.ort else {}
        return {
            "README.md": render("ios/README.md.jinja", **values),
            "Package.swift": render("ios/Package.swift.jinja", **values),
            **{f"{sources}/{name}": read(f"ios/{name}") for name in SOURCES},
            f"{sources}/Constants.swift": render("ios/Constants.swift.jinja", **values),
            f"{tests}/{module}Tests.swift": render("ios/Tests.swift.jinja", **values),
            **{root + name: content for name, content in reduced.items()},
        }

    def _limits(self, constants: WrapperConstants) -> tuple[str, ...]:
        return (
            "not executed on iOS or macOS: Swift 6.0 on Linux compiled and tested such sources, with doubles of ONNX "
            "Runtime and CryptoKit",
            constants.not_measured("iOS or macOS"),
            f"it loads ONNX Runtime {self.onnxruntime}; measured was {constants.runtime}",
        )


def _module_of(name: str) -> str:
    """Return a recipe's name, of letters, digits, dots, _ and -, as a Swift module: my-model.2 is EdgeproofMyModel2."""
    return "Edgeproof" + "".join(word[:1].upper() + word[1:] for word in re.split(r"[._-]+", name))
