"""A web package in the hands of an app team: npm, Node, TypeScript, a bundler and a browser, all of them real."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.headless_chromium import find_chromium
from pipeline.release.payload import Package
from pipeline.release.self_test import SelfTest

NEEDS_NPM = "needs Node and npm"
RUNTIMES = ("onnxruntime-node", "onnxruntime-web")
TYPESCRIPT = ("typescript", "@types/node")
CONSUMER = """\
import {{ agrees, load, pixelsOf, type Answer, type Label, type SelfTest }} from "{package}";
import * as node from "onnxruntime-node";
import * as web from "onnxruntime-web/wasm";

const first = await load({{ ort: node, sessionOptions: {{ executionProviders: ["cpu"] }} }});
const model = await load({{ ort: web, url: new URL("https://example.com/release/") }});
const answers: Answer[] = await model.classify(pixelsOf(new ImageData(8, 8)));
const label: Label = answers[0]!.label;
const report: SelfTest = await first.selfTest({{ runs: 3, scope: "end_to_end" }});
console.log(label, agrees(report), report.samples_ns.length);
// @ts-expect-error: classify() takes bytes
await model.classify([1, 2, 3]);
// @ts-expect-error: no class of the model
const wrong: Label = "no such class";
"""
"""What an app might write; the compiler must take all but the two lines that are marked."""
TSC = """
--noEmit --strict --types node --target es2022 --module nodenext --moduleResolution nodenext
--lib es2022,dom,dom.iterable --allowJs --checkJs --maxNodeModuleJsDepth 0
--noImplicitAny false --useUnknownInCatchVariables false
"""
BUNDLED = """\
import {{ load }} from "{package}";

globalThis.finished = load().then((model) => model.selfTest({{ runs: 300 }}));
"""


class LabError(Exception):
    """A tool said no; the message is its own."""


@dataclass(frozen=True)
class App:
    """An npm project."""

    folder: Path

    def install(self, *what: str | Path, offline: bool = False) -> None:
        """Add packages; scripts of theirs are not run (onnxruntime-node's would fetch CUDA)."""
        flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--offline" if offline else "--prefer-offline"]
        self.run("npm", "install", *flags, *map(str, what))

    def run(self, *command: str) -> str:
        """Run a command in the project and return what it printed; raises LabError where it fails."""
        environment = os.environ | {"NO_UPDATE_NOTIFIER": "1", "npm_config_loglevel": "error"}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode != 0:
            raise LabError(f"{' '.join(command[:2])}: exit code {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout

    def version_of(self, package: str) -> str:
        """Return the version of an installed package."""
        return str(json.loads((self.folder / "node_modules" / package / "package.json").read_text())["version"])


@dataclass(frozen=True)
class Installed:
    """The package of a model in an app."""

    app: App
    name: str

    @property
    def folder(self) -> Path:
        """Where npm put it."""
        return self.app.folder / "node_modules" / self.name

    @property
    def page(self) -> str:
        """Its example page, below the app."""
        return f"node_modules/{self.name}/example/index.html"

    def self_test(self, runs: int = 300) -> SelfTest:
        """Run its self-test in Node, as its README says; raises LabError where it refuses."""
        command = f"{self.name.rpartition('/')[2]}-self-test"
        return SelfTest.model_validate_json(self.app.run("npx", "--offline", command, "--runs", str(runs)))

    def check_types(self) -> None:
        """Compile an app against its declarations, and its own sources; raises LabError with what the compiler says."""
        consumer = self.app.folder / "consumer.mts"
        consumer.write_text(CONSUMER.format(package=self.name))
        sources = [self.folder / source for source in ("index.js", "node.js", "self-test.js")]
        self.app.run("npx", "--offline", "tsc", *TSC.split(), str(consumer), *map(str, sources))

    def bundle(self) -> str:
        """Build a page with Vite, which must carry model and runtime along, and return where it lies below the app."""
        (self.app.folder / "index.html").write_text('<!doctype html><script type="module" src="/main.js"></script>')
        (self.app.folder / "main.js").write_text(BUNDLED.format(package=self.name))
        self.app.run("npx", "--offline", "vite", "build", "--base", "./", "--logLevel", "error")
        return "dist/index.html"

    def tamper(self) -> None:
        """Change the last byte of the installed model."""
        model = self.folder / "release" / "model.onnx"
        content = bytearray(model.read_bytes())
        content[-1] ^= 1
        model.write_bytes(content)


def missing_tools() -> list[str]:
    """Return what this machine lacks."""
    found = {"Node": shutil.which("node"), "npm": shutil.which("npm"), "Chromium": find_chromium()}
    return [name for name, path in found.items() if path is None]


def new_app(folder: Path, packages: Sequence[str]) -> App:
    """Return an empty project with packages from the registry."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{ "name": "app", "private": true, "type": "module" }\n')
    app = App(folder)
    app.install(*packages)
    return app


def add_package(app: App, package: Package) -> Installed:
    """Install a web package's archive: nothing of the registry is needed for it."""
    archive = app.folder / package.archive
    archive.write_bytes(package.files[package.archive])
    before = _dependencies(app)
    app.install(archive, offline=True)
    (name,) = _dependencies(app) - before
    return Installed(app, name)


def _dependencies(app: App) -> set[str]:
    return set(json.loads((app.folder / "package.json").read_text()).get("dependencies", {}))
