"""Verbs about what was deployed before."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import EXIT_CODES, AsJson, Build, DevicesFile, Overrides, RecipePath

app = typer.Typer()


@app.command(
    epilog="Example: edgeproof release recipes/digits.toml --for android --key signing_key.pem. The private key may "
    "also be in EDGEPROOF_SIGNING_KEY (PEM, or a path), its passphrase in EDGEPROOF_KEY_PASSPHRASE.\n\n" + EXIT_CODES
)
def release(
    recipe: RecipePath,
    platform: Annotated[
        str, typer.Option("--for", metavar="PLATFORM", help="android, ios, linux or web.", show_default=False)
    ],
    deployment: Annotated[
        str | None,
        typer.Option("--deployment", metavar="NAME", help="Of the recipe; the first that passed if left out."),
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option("--from", metavar="RELEASE.zip", help="Package this release in the place of the build's."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="PRIVATE.pem", help="Sign with it; see `edgeproof keys new`.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FOLDER", help="New or empty; else build/RECIPE/DEPLOYMENT/packages/PLATFORM, made anew."
        ),
    ] = None,
    overrides: Overrides = None,
    accept_undecided: Annotated[
        bool, typer.Option("--accept-undecided", help="Where it is deployed first: as for deploy.")
    ] = False,
    devices: DevicesFile = None,
    build: Build = Path("build"),
    as_json: AsJson = False,
) -> None:
    """Package a deployment that passed for apps: an AAR, a Swift package, a wheel or an npm package; deploys first."""
    from pipeline.verbs.release import ReleaseRequest, run_release

    request = ReleaseRequest(
        recipe=recipe,
        platform=platform,
        deployment=deployment,
        archive=archive,
        key=key,
        out=out,
        overrides=tuple(overrides or ()),
        accept_undecided=accept_undecided,
        build=build,
        devices=devices,
    )
    raise typer.Exit(run_release(request, as_json=as_json))


@app.command(epilog="Example: edgeproof rollback local --list.\n\n" + EXIT_CODES)
def rollback(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="The device, as deployments name it.")],
    release: Annotated[
        str | None,
        typer.Argument(
            metavar="RELEASE", help="Which of its releases, as RECIPE-DEPLOYMENT; the only one if left out."
        ),
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="VERSION", help="The version to go to; what the current one replaced if left out."
        ),
    ] = "",
    show: Annotated[bool, typer.Option("--list", help="List what is installed instead.")] = False,
    devices: DevicesFile = None,
    build: Build = Path("build"),
    as_json: AsJson = False,
) -> None:
    """Make the release before the current one current again on a device, once it answers there as it did."""
    from pipeline.verbs.rollback import run_list, run_rollback

    if show:
        raise typer.Exit(run_list(device, devices, build=build, as_json=as_json))
    raise typer.Exit(run_rollback(device, release, version=to, devices=devices, build=build, as_json=as_json))


@app.command(epilog="Example: edgeproof history --recipe digits --last 10.\n\n" + EXIT_CODES)
def history(
    recipe: Annotated[str | None, typer.Option("--recipe", metavar="NAME", help="Of this recipe alone.")] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", metavar="DEPLOYMENT", help="Of this one alone.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="How many, counted from the newest.")] = 20,
    build: Build = Path("build"),
    as_json: AsJson = False,
) -> None:
    """List the profiles that deploys took, and what changed from one to the next under the same conditions."""
    from pipeline.verbs.history import run_history

    raise typer.Exit(run_history(build, recipe, target, last=last, as_json=as_json))


@app.command(epilog="Example: edgeproof compare 3 build/digits/cpu.\n\n" + EXIT_CODES)
def compare(
    before: Annotated[
        str, typer.Argument(metavar="BEFORE", help="A number of the history, a report.json, or its folder.")
    ],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="Another.")],
    anyway: Annotated[bool, typer.Option("--anyway", help="Compare even if conditions differ; says how.")] = False,
    build: Build = Path("build"),
    as_json: AsJson = False,
) -> None:
    """Compare two profiles with intervals; exit code 3 where something became worse."""
    from pipeline.verbs.history import run_compare

    raise typer.Exit(run_compare(before, after, build=build, anyway=anyway, as_json=as_json))


@app.command(
    epilog="Example: edgeproof diff digits-0.1.0-cpu.zip digits-0.2.0-cpu.zip. Exit codes: 0 nothing is worse, 1 one "
    "of them is not as it was packed, 2 wrong usage, 3 a figure became worse beyond chance, or an app would break."
)
def diff(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A release or package.", show_default=False)],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Another.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Compare two releases or packages: figures, interface, licences, operators and files."""
    from pipeline.verbs.diff import run_diff

    raise typer.Exit(run_diff(before, after, as_json=as_json))


@app.command(
    epilog="Example: edgeproof gate --release digits-0.1.0.aar --profile pixel8.json. Exit codes: 0 every budget holds "
    "there, 1 the release is not as it was packed, 2 wrong usage or no profile of this release, 3 latency or golden "
    "answers failed, 5 undecided."
)
def gate(
    profile: Annotated[
        list[Path],
        typer.Option(
            "--profile",
            metavar="FILE",
            help="JSON that selfTest() of a package returned; one for each start of the app.",
            show_default=False,
        ),
    ],
    release: Annotated[
        Path,
        typer.Option("--release", metavar="FILE", help="The release, or the package of it.", show_default=False),
    ],
    as_json: AsJson = False,
) -> None:
    """Judge what a package measured on a phone by the budget of its release."""
    from pipeline.verbs.gate import run_gate

    raise typer.Exit(run_gate(profile, release, as_json=as_json))
