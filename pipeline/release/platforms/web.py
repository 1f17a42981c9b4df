"""An npm package: the model behind a JavaScript module, for browsers and for Node. Rule: plain files, no build step.

The sources in web/ are the same in every package; what differs between models is in constants.js.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, JsonValue, field_validator

from pipeline.parts import RecipePart
from pipeline.release.bill import Library
from pipeline.release.constants import WrapperConstants, constants_of
from pipeline.release.payload import Package, Payload
from pipeline.release.platforms.reduced_build import OPERATORS, ORT_MODEL, reduced_build_files
from pipeline.release.platforms.templates import read, render
from pipeline.release.seal import seal
from pipeline.release.signing import Signer

ROOT = "package/"
"""npm's own folder in every archive."""
RELEASE_FOLDER = "release/"
AS_THEY_ARE = ("index.js", "model.js", "node.js", "self-test.js", "example/main.js")
"""Sources that are equal for every model."""

SATURATION = "in Node, x86 processors without VNNI may round int8 sums off: the self-test shows whether yours does"

_PART = r"[a-z0-9][a-z0-9._~-]*"
_NAME = re.compile(rf"(@{_PART}/)?{_PART}")
_LONGEST_NAME = 214
_VERSION = re.compile(
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(-(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*)?"
)
"""Of semver.org, without the build metadata that npm drops."""
_RANGE = r"^([\^~]|>=)?[0-9]+\.[0-9]+\.[0-9]+( <[0-9]+(\.[0-9]+){0,2})?$"
_RUNTIMES = ("onnxruntime-node", "onnxruntime-web")
_TAKEN = """
assert async_hooks buffer child_process cluster console constants crypto dgram diagnostics_channel dns domain events fs
http http2 https inspector module net os path perf_hooks process punycode querystring readline repl stream
string_decoder sys timers tls trace_events tty url util v8 vm wasi worker_threads zlib
node_modules favicon.ico onnxruntime-node onnxruntime-web
"""
"""Modules of Node and names of npm's own, which it refuses for packages; and what the package stands on."""


class Web(RecipePart):
    """An npm package around ONNX Runtime, for browsers and for Node."""

    kind: Literal["web"] = "web"
    """Which platform."""
    name: str | None = Field(default=None, examples=["@example/digits"])
    """Name of the npm package, with or without a scope; edgeproof-NAME, of the recipe's name, if left out."""
    onnxruntime: str = Field(default="^1.23.2", pattern=_RANGE, examples=[">=1.23.2 <2"])
    """Versions of onnxruntime-web and onnxruntime-node that an app may bring: `^1.23.2`, `~1.23.2`, `1.23.2` or
    `>=1.23.2 <2`. Older ones do not load in pages that Vite builds."""
    ort: bool = False
    """Whether the model is there as model.ort too, for builds of ONNX Runtime with this model's operators only."""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and (_NAME.fullmatch(name) is None or len(name) > _LONGEST_NAME or name in _TAKEN.split()):
            raise ValueError(
                'expected a name that npm takes, as digits or @example/digits: small letters, digits, ".", "_", '
                f'"-" and "~", at most {_LONGEST_NAME} characters, no module of Node; got {json.dumps(name)}'
            )
        return name

    def refusal(self, name: str, version: str) -> str | None:
        """Return why npm would refuse the version, or take it for another one."""
        if _VERSION.fullmatch(version) is None:
            return (
                "expected a version that npm takes as it is, like 1.2.3 or 1.2.3-rc.1 (no leading zeros, nothing "
                f"behind a plus); got {json.dumps(version)}; change the recipe's version"
            )
        return None

    def package(self, payload: Payload, signer: Signer | None) -> Package:
        """Return one archive, which `npm install` takes."""
        wrapper = self._describe(payload)
        reduced = reduced_build_files(payload, None) if self.ort else {}
        own = {**wrapper.files(payload, reduced), **{RELEASE_FOLDER + name: reduced[name] for name in reduced}}
        libraries = tuple(Library(each, self.onnxruntime, f"pkg:npm/{each}", "MIT") for each in _RUNTIMES)
        content = seal(
            {ROOT + path: own[path] for path in own},
            payload,
            platform=self.kind,
            root=ROOT + RELEASE_FOLDER,
            model=ROOT + RELEASE_FOLDER + payload.manifest.model,
            container="tgz",
            libraries=libraries,
            signer=signer,
        )
        use = f"npm install ./{wrapper.archive} onnxruntime-web"
        return Package(
            self.kind,
            {wrapper.archive: content},
            archive=wrapper.archive,
            use=use,
            limits=wrapper.limits,
            libraries=libraries,
        )

    def _describe(self, payload: Payload) -> "_Wrapper":
        constants = constants_of(payload.manifest)
        name = self.name or f"edgeproof-{constants.name.lower()}"
        limits = (
            constants.not_measured("web"),
            "not run in any browser or Node when it was packaged: its self-test shows what it does there",
            *([SATURATION] if payload.manifest.precision.startswith("int8") else []),
        )
        return _Wrapper(constants, name, self.onnxruntime, payload.manifest.licences.model, limits)


@dataclass(frozen=True)
class _Wrapper:
    """The npm package of one model."""

    constants: WrapperConstants
    name: str
    onnxruntime: str
    licence: str | None
    limits: tuple[str, ...]

    @property
    def archive(self) -> str:
        """Name of the file, as `npm pack` makes it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.constants.version}.tgz"

    @property
    def command(self) -> str:
        """What runs the self-test in Node."""
        return f"{self.name.rpartition('/')[2]}-self-test"

    def files(self, payload: Payload, reduced: dict[str, bytes]) -> dict[str, bytes]:
        """Return all but the release by path; `reduced` is what else lies beside it."""
        labels = " | ".join(json.dumps(label, ensure_ascii=False) for label in self.constants.labels)
        return {
            **{path: read(f"web/{path}") for path in AS_THEY_ARE},
            "constants.js": _constants_js(self.constants, payload, reduced),
            "index.d.ts": self._render("index.d.ts", labels=labels, has_ort=bool(reduced)),
            "README.md": self._render("README.md", has_ort=bool(reduced), ort_model=ORT_MODEL, operators=OPERATORS),
            "example/index.html": self._render("example/index.html", modules="../" * (2 + self.name.count("/"))),
            "package.json": self._package_json(),
        }

    def _render(self, path: str, **values: object) -> bytes:
        own = {"c": self.constants, "package": self.name, "archive": self.archive, "command": self.command}
        return render(f"web/{path}.jinja", **own, licence=self.licence, limits=self.limits, **values)

    def _package_json(self) -> bytes:
        return _json(
            {
                "name": self.name,
                "version": self.constants.version,
                "description": f"{self.constants.name}: an image classifier for ONNX Runtime, with its evidence",
                "license": self.licence or "SEE LICENSE IN README.md",
                "type": "module",
                "exports": {
                    ".": {"types": "./index.d.ts", "node": "./node.js", "default": "./index.js"},
                    f"./{RELEASE_FOLDER}*": f"./{RELEASE_FOLDER}*",
                    "./package.json": "./package.json",
                },
                "types": "./index.d.ts",
                "bin": {self.command: "self-test.js"},
                "files": ["*.js", "*.d.ts", "example", RELEASE_FOLDER.rstrip("/")],
                "sideEffects": False,
                "engines": {"node": ">=18.3"},
                "peerDependencies": dict.fromkeys(_RUNTIMES, self.onnxruntime),
                "peerDependenciesMeta": {runtime: {"optional": True} for runtime in _RUNTIMES},
            }
        ).encode()


def _constants_js(c: WrapperConstants, payload: Payload, reduced: dict[str, bytes]) -> bytes:
    """Return what is known of the model, and where its files lie: bundlers look for `new URL` of a literal."""
    golden, models = payload.golden, {"onnx": payload.manifest.model, **({"ort": ORT_MODEL} if reduced else {})}
    loaded = {**payload.files, **reduced}
    names = sorted([*models.values(), golden.inputs.file, golden.outputs.file])
    release: dict[str, JsonValue] = {
        "name": c.name,
        "version": c.version,
        "deployment": c.deployment,
        "verdict": c.verdict,
        "measuredOn": c.measured_on,
        "input": {
            "name": c.input_name,
            "layout": c.layout,
            "height": c.height,
            "width": c.width,
            "channels": c.channels,
        },
        "batch": c.batch,
        "scale": [*c.scale],
        "bias": [*c.bias],
        "output": {"name": c.output_name, "classes": len(c.labels)},
        "activation": c.activation,
        "labels": [*c.labels],
        **_measured_as(payload),
        "models": {**models},
        "golden": {
            "samples": golden.samples,
            "images": golden.inputs.file,
            "logits": golden.outputs.file,
            "labels": [*golden.labels],
            "tolerance": golden.tolerance,
        },
        "sha256": {name: hashlib.sha256(loaded[name]).hexdigest() for name in names},
    }
    urls = "".join(f'  {json.dumps(name)}: new URL("./{RELEASE_FOLDER}{name}", import.meta.url),\n' for name in names)
    return (
        f"/** What is known of {c.name} {c.version}: made from the manifest of its release, in {RELEASE_FOLDER}. */\n"
        f"export const RELEASE = {_json(release).rstrip()};\n\n"
        f"/** Where the files lie that are read at run time. */\nexport const URLS = {{\n{urls}}};\n"
    ).encode()


def _measured_as(payload: Payload) -> dict[str, JsonValue]:
    """Return what a latency here must be taken as, to be compared with the budget."""
    budget, latency = payload.manifest.budget, payload.manifest.latency
    return {
        "scope": budget.latency.scope if budget and budget.latency else "model",
        "threads": latency.threads if latency else 1,
    }


def _json(value: JsonValue) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
