"""Linux: a Python wheel, and the same files as a plain archive. Rule: pure Python 3.8, one for all processors."""

import json
import keyword
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, Field

from pipeline.parts import RecipePart
from pipeline.release.bill import Library
from pipeline.release.constants import WrapperConstants, constants_of
from pipeline.release.payload import Package, Payload
from pipeline.release.platforms.reduced_build import OPERATORS, reduced_build_files
from pipeline.release.platforms.templates import read, render
from pipeline.release.seal import seal
from pipeline.release.signing import Signer

AS_THEY_ARE = ("__init__.py", "__main__.py", "model.py", "py.typed")
"""Of the wrapper: equal for every model."""
TAKEN = frozenset(sys.stdlib_module_names) | {"numpy", "onnxruntime"}
WHEEL = b"Wheel-Version: 1.0\nGenerator: edgeproof\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def _is_distribution(name: str) -> str:
    try:
        module = _module_of(canonicalize_name(name, validate=True))
    except InvalidName as error:
        raise ValueError(
            f'expected letters, digits, ".", "_" and "-", with a letter or a digit at both ends; got "{name}"'
        ) from error
    if not module.isidentifier() or keyword.iskeyword(module) or module in TAKEN:
        raise ValueError(f'expected a name that gives a Python module of its own; got "{name}", module {module}')
    return name


def _is_range(text: str) -> str:
    try:
        if not text.isprintable():
            raise InvalidSpecifier(text)
        SpecifierSet(text)
    except InvalidSpecifier as error:
        raise ValueError(
            f'expected a range of versions as pip takes it, like ">=1.18,<2"; got {json.dumps(text)}'
        ) from error
    return text


def _module_of(distribution: str) -> str:
    return distribution.replace("-", "_")


VersionRange = Annotated[str, AfterValidator(_is_range)]


class Linux(RecipePart):
    """A Python wheel and a plain archive, for any processor that NumPy and ONNX Runtime have packages for."""

    kind: Literal["linux"] = "linux"
    """Which platform."""
    name: Annotated[str, AfterValidator(_is_distribution)] | None = Field(default=None, examples=["acme-digits"])
    """Name of the Python distribution; edgeproof-NAME, of the recipe's name, if left out. Its module has the same name
    with underscores."""
    numpy: VersionRange = Field(default=">=1.21", examples=[">=1.21,<3"])
    """Versions of NumPy that the wheel may be installed with."""
    onnxruntime: VersionRange = Field(default=">=1.18", examples=["==1.22.*"])
    """Versions of ONNX Runtime that the wheel may be installed with."""
    ort: bool = True
    """Whether the plain archive carries model.ort and its operators too, for reduced builds of ONNX Runtime."""

    def refusal(self, name: str, version: str) -> str | None:
        """Return why PyPI and pip would refuse the name or the version, or order it wrongly."""
        try:
            _is_distribution(self.name or f"edgeproof-{name}")
        except ValueError as error:
            return f"{error}; set name for the platform linux"
        try:
            parsed = Version(version)
        except InvalidVersion:
            parsed = None
        if parsed is None or parsed.local or parsed.is_postrelease:
            return (
                f'expected a version that PyPI takes and orders alike, as 1.2.3 or 1.2.3-rc.1; got "{version}"; '
                "change the recipe's version"
            )
        return None

    def package(self, payload: Payload, signer: Signer | None) -> Package:
        """Return wheel and plain archive."""
        wrapper = self._describe(payload)
        wheel, archive = f"{wrapper.stem}-py3-none-any.whl", f"{wrapper.stem}-linux.zip"
        own = wrapper.files()
        as_wheel = {**own, **self._dist_info(wrapper, wheel)}
        as_archive = {**own, **self._around(wrapper, payload)}
        libraries = (
            Library("numpy", self.numpy, "pkg:pypi/numpy", "BSD-3-Clause"),
            Library("onnxruntime", self.onnxruntime, "pkg:pypi/onnxruntime", "MIT"),
        )
        sealed = {
            name: seal(
                files,
                payload,
                platform=self.kind,
                root=wrapper.root,
                model=f"{wrapper.root}model.onnx",
                libraries=libraries,
                signer=signer,
            )
            for name, files in ((wheel, as_wheel), (archive, as_archive))
        }
        return Package(
            self.kind,
            sealed,
            archive=wheel,
            use=f"pip install ./{wheel}",
            limits=wrapper.limits,
            libraries=libraries,
        )

    def _describe(self, payload: Payload) -> "_Wrapper":
        constants = constants_of(payload.manifest)
        distribution = canonicalize_name(self.name or f"edgeproof-{constants.name}")
        version = str(Version(constants.version))
        return _Wrapper(constants, distribution, version, payload.manifest.licences.model, self._limits(constants))

    def _limits(self, constants: WrapperConstants) -> tuple[str, ...]:
        return (
            constants.not_measured("any other machine"),
            f"of numpy{self.numpy} and onnxruntime{self.onnxruntime}, {constants.runtime} alone was run",
        )

    def _dist_info(self, wrapper: "_Wrapper", wheel: str) -> dict[str, bytes]:
        fields = wrapper.render("linux/METADATA.jinja", numpy=self.numpy, onnxruntime=self.onnxruntime)
        readme = wrapper.render("linux/README.md.jinja", wheel=wheel)
        folder = f"{wrapper.stem}.dist-info"
        return {f"{folder}/METADATA": fields + readme, f"{folder}/WHEEL": WHEEL}

    def _around(self, wrapper: "_Wrapper", payload: Payload) -> dict[str, bytes]:
        reduced = reduced_build_files(payload, None) if self.ort else {}
        readme = wrapper.render("linux/README.md.jinja", wheel=None, ort=self.ort, operators=OPERATORS)
        return {
            "README.md": readme,
            "requirements.txt": f"numpy{self.numpy}\nonnxruntime{self.onnxruntime}\n".encode(),
            **{wrapper.root + name: content for name, content in reduced.items()},
        }


@dataclass(frozen=True)
class _Wrapper:
    """The Python package of one model."""

    constants: WrapperConstants
    distribution: str
    version: str
    licence: str | None
    limits: tuple[str, ...]

    @property
    def module(self) -> str:
        return _module_of(self.distribution)

    @property
    def stem(self) -> str:
        """What file names begin with (PyPA, binary distribution format)."""
        return f"{self.module}-{self.version}"

    @property
    def root(self) -> str:
        return f"{self.module}/release/"

    def render(self, template: str, **values: object) -> bytes:
        own = {"c": self.constants, "distribution": self.distribution, "module": self.module, "version": self.version}
        return render(template, **own, licence=self.licence, limits=self.limits, **values)

    def files(self) -> dict[str, bytes]:
        """Return the package's modules by path."""
        modules = {f"{self.module}/{name}": read(f"python_wrapper/{name}") for name in AS_THEY_ARE}
        constants = render("python_wrapper/constants.py.jinja", c=self.constants, platform="linux")
        return {**modules, f"{self.module}/constants.py": constants}
