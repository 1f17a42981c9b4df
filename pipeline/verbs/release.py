"""`edgeproof release`: a deployment that passed, as a package that an app team adds with one line."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline import chain
from pipeline.durable import writing_in
from pipeline.errors import UsageError
from pipeline.follow import require_one_process
from pipeline.inventory import load_inventory
from pipeline.locks import held
from pipeline.measuring.verdict import Verdict
from pipeline.publish import RELEASE
from pipeline.recipe import Deployment, Recipe, load_recipe
from pipeline.release.licences import same_licence
from pipeline.release.packages import RUNTIME, make_package, overhead, write_package
from pipeline.release.payload import Package, Payload, read_payload
from pipeline.release.platforms import DEFAULTS, AnyPlatform
from pipeline.release.signing import SigningKey, find_signing_key
from pipeline.report.report import read_report
from pipeline.report.wording import byte_words
from pipeline.schema import nearest
from pipeline.verbs.output import EXIT_CODES, console_for_people, show_outcome, write_json

PACKAGES = "packages"
UNSIGNED = (
    "NOT SIGNED: whoever changes this package can make it look whole. `edgeproof keys new` makes a key, --key signs "
    "with it"
)


@dataclass(frozen=True, kw_only=True)
class ReleaseRequest:
    """The command line of one release, as typed."""

    recipe: Path
    platform: str
    deployment: str | None = None
    archive: Path | None = None
    """A release in the place of the recipe's own."""
    key: Path | None = None
    out: Path | None = None
    overrides: tuple[str, ...] = ()
    accept_undecided: bool = False
    build: Path = Path("build")
    devices: Path | None = None


def run_release(request: ReleaseRequest, *, as_json: bool) -> int:
    """Package a deployment that passed, which is deployed first where it never was; return the exit code.

    Raises:
        UsageError: platform, deployment or key is none that can be used.
        EdgeproofError: the release is not as it was packed, or cannot be packaged.
    """
    require_one_process("release")
    console = console_for_people(as_json=as_json)
    recipe = load_recipe(request.recipe, request.overrides)
    platform = choose_platform(recipe, request.platform)
    key = find_signing_key(request.key, os.environ)
    if request.archive is None:
        deployment = choose_released(recipe, request.deployment, request.build)
        archive = archive_of(recipe, deployment, request.build)
        if not archive.exists() and (code := _deploy(request, recipe, deployment, console)):
            return code
    else:
        archive = request.archive
    with console.status(f"packaging {archive.name} for {platform.kind}"):
        payload = read_payload(archive)
        _require_own(payload, recipe, archive, request.deployment)
        package = make_package(platform, payload, key)
        _require_licences(payload, recipe, package)
        folder = _write(request, recipe, payload, package)
    if as_json:
        write_json(_as_json(payload, package, folder, key))
    else:
        _show(console, payload, package, folder, key)
    return 0


def choose_platform(recipe: Recipe, kind: str) -> AnyPlatform:
    """Return a platform as the recipe has it.

    Raises:
        UsageError: there is none of that name, or it takes another name or version than the recipe's.
    """
    if kind not in DEFAULTS:
        raise UsageError(f"--for: expected one of {', '.join(DEFAULTS)}; got {kind}{nearest(kind, tuple(DEFAULTS))}")
    platform = recipe.release.platform(kind)
    if refusal := platform.refusal(recipe.name, recipe.version):
        raise UsageError(f"--for {kind}: {refusal}")
    return platform


def choose_released(recipe: Recipe, name: str | None, build: Path) -> Deployment:
    """Return the deployment that is meant: the first that passed, else the first.

    Raises:
        UsageError: the recipe has none of that name, or it is of a runtime that packages do not load models with.
    """
    able = [each for each in recipe.deployments if each.target.kind == RUNTIME]
    names = tuple(each.name for each in able)
    listed = ", ".join(names) or f"none in this recipe: add one with the target {RUNTIME}"
    if name is not None:
        if found := next((each for each in able if each.name == name), None):
            return found
        other = next((f", which is of {each.target.kind}" for each in recipe.deployments if each.name == name), "")
        raise UsageError(
            f"--deployment: expected one of {RUNTIME}, which packages load models with: {listed}; got {name}{other}"
            f"{nearest(name, names)}"
        )
    if not able:
        raise UsageError(
            f"{recipe.name}: expected a deployment of {RUNTIME}, which packages load models with; got {listed}"
        )
    return next((each for each in able if archive_of(recipe, each, build).exists()), able[0])


def archive_of(recipe: Recipe, deployment: Deployment, build: Path) -> Path:
    """Return where the release of a deployment lies, if there is one."""
    name = f"{recipe.name}-{recipe.version}-{deployment.name}.zip"
    return build / recipe.name / deployment.name / RELEASE / name


def verdict_of(recipe: Recipe, deployment: Deployment, build: Path) -> Verdict | None:
    """Return how the last deploy of this version ended; None where there was none, or it stopped before training."""
    try:
        report = read_report((build / recipe.name / deployment.name / "report.json").read_text("utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
    return report.verdict if report.version == recipe.version and not report.untrained else None


def _deploy(request: ReleaseRequest, recipe: Recipe, deployment: Deployment, console: Console) -> int:
    """Deploy what never was; refuse what did not pass."""
    verdict = verdict_of(recipe, deployment, request.build)
    is_accepted = verdict is Verdict.UNDECIDED and request.accept_undecided
    if verdict is not None and verdict is not Verdict.PASS and not is_accepted:
        folder = request.build / recipe.name / deployment.name
        remedy = "mend it and deploy again" if verdict is Verdict.FAIL else "measure longer, or set --accept-undecided"
        console.print(
            Text(
                f"edgeproof: {recipe.name} for {deployment.name}: expected every budget to hold; got {verdict.value} "
                f"(`edgeproof show {folder}`); {remedy}; nothing was packaged"
            ),
            soft_wrap=True,
        )
        return EXIT_CODES[verdict]
    console.print(Text(f"{deployment.name}: no release of {recipe.version} yet: deploying"), soft_wrap=True)
    report = chain.deploy(
        recipe,
        deployment,
        build=request.build,
        devices=load_inventory(request.devices),
        accept_undecided=request.accept_undecided,
        console=console,
    )
    show_outcome(console, report, request.build / recipe.name / deployment.name)
    return 0 if archive_of(recipe, deployment, request.build).exists() else EXIT_CODES[report.verdict]


def _require_own(payload: Payload, recipe: Recipe, archive: Path, deployment: str | None) -> None:
    """Refuse a release of another recipe, of another deployment, or of budgets or licences that the recipe left."""
    manifest = payload.manifest
    if deployment is not None and deployment != manifest.deployment:
        raise UsageError(
            f"{archive}: expected a release of deployment {deployment}; got one of {manifest.deployment}; leave "
            "--deployment out, or name another archive"
        )
    if (manifest.name, manifest.version) != (recipe.name, recipe.version):
        raise UsageError(
            f"{archive}: expected a release of {recipe.name} {recipe.version}; got {manifest.name} {manifest.version}; "
            "name its own recipe, or deploy again"
        )
    own = next((each for each in recipe.deployments if each.name == manifest.deployment), None)
    if own is None or manifest.budget != own.budget:
        raise UsageError(
            f"{archive}: expected a release that was judged by the recipe's budget of {manifest.deployment}; got "
            "another budget; deploy again"
        )
    if not same_licence(manifest.licences.model, recipe.license):
        raise UsageError(
            f"{archive}: expected a model under {recipe.license}, as the recipe says; got one under "
            f"{manifest.licences.model}; deploy again"
        )


def _require_licences(payload: Payload, recipe: Recipe, package: Package) -> None:
    """Refuse what the recipe forbids of the release, and of what the package needs beside it."""
    found = payload.manifest.licences
    libraries = {each.name: each.licence for each in package.libraries}
    found = found.model_copy(update={"dependencies": {**found.dependencies, **libraries}})
    if refusals := recipe.release.licences.refusals(found):
        raise UsageError(f"--for {package.platform}: {'; '.join(refusals)}; change release.licences, or what is used")


def _write(request: ReleaseRequest, recipe: Recipe, payload: Payload, package: Package) -> Path:
    packages = request.build / recipe.name / payload.manifest.deployment / PACKAGES
    folder = (request.out or packages / package.platform).absolute()
    with writing_in(folder.parent, "the package"):
        packages.mkdir(parents=True, exist_ok=True)
        with held(packages / "lock", f"packaging {recipe.name} for {package.platform}"):
            write_package(package, folder, is_ours=request.out is None)
    return folder


def _as_json(payload: Payload, package: Package, folder: Path, key: SigningKey | None) -> JsonValue:
    cost, content = overhead(package, payload), package.files[package.archive]
    return {
        "name": payload.manifest.name,
        "version": payload.manifest.version,
        "deployment": payload.manifest.deployment,
        "platform": package.platform,
        "folder": str(folder),
        "archive": package.archive,
        "sha256": hashlib.sha256(content).hexdigest(),
        "archive_bytes": cost.archive_bytes,
        "model_bytes": cost.model_bytes,
        "signed_by": key.public.key_id if key else None,
        "use": package.use,
        "limits": [*package.limits],
        "files": {name: len(content) for name, content in sorted(package.files.items())},
    }


def _show(console: Console, payload: Payload, package: Package, folder: Path, key: SigningKey | None) -> None:
    manifest, cost = payload.manifest, overhead(package, payload)
    console.print(
        Text(f"{manifest.name} {manifest.version} of {manifest.deployment} for {package.platform}: {folder}"),
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("file", overflow="fold")
    table.add_column("size", justify="right")
    for name, content in sorted(package.files.items()):
        table.add_row(Text(name), f"{len(content):,} bytes")
    console.print(table)
    for line in _lines(package, cost.model_bytes, cost.added_bytes, folder, key):
        console.print(Text(line), soft_wrap=True)


def _lines(package: Package, model_bytes: int, added_bytes: int, folder: Path, key: SigningKey | None) -> Iterator[str]:
    yield f"overhead: {byte_words(added_bytes)} beside a model of {byte_words(model_bytes)} in {package.archive}"
    yield f"use: {package.use}"
    yield from (f"limit: {limit}" for limit in package.limits)
    yield f"signed by key {key.public.key_id}" if key else UNSIGNED
    yield f"check: edgeproof verify {folder / package.archive}" + (" --key PUBLIC.pem" if key else "")
