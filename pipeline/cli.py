"""The command line: verbs, options, exit codes. Rule: imports nothing heavy; a verb imports its work when it runs."""

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from targets.errors import EdgeproofError

EXIT_CODES = (
    "Exit codes: 0 released, 1 error, 2 wrong usage or recipe, 3 a budget failed, 4 a device failed, "
    "5 undecided, 130 interrupted. With --debug an error shows its traceback."
)
INTERRUPTED = (
    "edgeproof: interrupted. Finished stages and the last finished epoch are kept: the same command goes on from there."
)
_DISK_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space (`edgeproof store show`, `edgeproof store prune`), then go on",
    errno.EDQUOT: "your disk quota is used up: free some space (`edgeproof store prune`), then go on",
    errno.EROFS: "the file system is read-only: name a folder that can be written, with --build",
    errno.EACCES: "permission denied: check who owns it, or name another folder with --build",
    errno.EPERM: "not permitted: check who owns it, or name another folder with --build",
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Takes a trained vision model to the edge and proves that it arrived.",
    epilog="Start with: edgeproof deploy recipes/digits.toml.\n\n" + EXIT_CODES,
)
store_app = typer.Typer(
    no_args_is_help=True,
    help="Show, prune or clear the results that are kept between runs.",
    epilog="Example: edgeproof store prune --days 30.\n\n" + EXIT_CODES,
)
app.add_typer(store_app, name="store")
devices_app = typer.Typer(
    no_args_is_help=True,
    help="List and add devices, and see whether they are ready to be deployed to.",
    epilog="Example: edgeproof devices check jetson.\n\n" + EXIT_CODES,
)
app.add_typer(devices_app, name="devices")

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a TOML file.", show_default=False)]
DeploymentName = Annotated[
    str | None,
    typer.Option("--target", "-t", metavar="DEPLOYMENT", help="Which deployment of the recipe; the first if left out."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="PATH=VALUE", help="Override one value of the recipe; may be repeated."),
]
Loggers = Annotated[
    list[str] | None,
    typer.Option("--log", metavar="LOGGER", help="Stream metrics to csv, tensorboard, mlflow or wandb; repeatable."),
]
Build = Annotated[Path, typer.Option("--build", metavar="DIR", help="Where results and the store are kept.")]
DevicesFile = Annotated[
    Path | None,
    typer.Option(
        "--devices", metavar="FILE", help="The inventory; else devices.toml here, and that of ~/.config/edgeproof/."
    ),
]
DeviceName = Annotated[str, typer.Option("--device", metavar="NAME", help="Where: local, or one of the inventory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to standard output, for machines.")]


@app.command(
    epilog="Example: edgeproof deploy recipes/digits.toml --target cpu "
    "--set deployments.cpu.budget.latency.max_ms=5.\n\n" + EXIT_CODES
)
def deploy(
    recipe: RecipePath,
    target: DeploymentName = None,
    overrides: Overrides = None,
    train_anyway: Annotated[
        bool, typer.Option("--train-anyway", help="Train although the untrained student already misses a budget.")
    ] = False,
    accept_undecided: Annotated[
        bool, typer.Option("--accept-undecided", help="Release although a budget is undecided; the release records it.")
    ] = False,
    loggers: Loggers = None,
    devices: DevicesFile = None,
    build: Build = Path("build"),
    as_json: AsJson = False,
) -> None:
    """Train, quantize, compile and measure a student on its device; release it if every budget holds."""
    from pipeline.verbs.deploy import Selection, run_deploy

    selection = Selection(recipe, target, tuple(overrides or ()), build, devices)
    code = run_deploy(
        selection,
        train_anyway=train_anyway,
        accept_undecided=accept_undecided,
        loggers=tuple(loggers or ()),
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command(epilog="Example: edgeproof distill recipes/digits.toml --seeds 3 --log tensorboard.\n\n" + EXIT_CODES)
def distill(
    recipe: RecipePath,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Train so many students that differ by seed alone.")] = 1,
    overrides: Overrides = None,
    loggers: Loggers = None,
    build: Build = Path("build"),
    as_json: AsJson = False,
) -> None:
    """Distill the student alone, without a device: accuracies of every seed, their mean and spread."""
    from pipeline.verbs.distill import run_distill

    raise typer.Exit(
        run_distill(
            recipe,
            overrides=tuple(overrides or ()),
            num_seeds=seeds,
            build=build,
            loggers=tuple(loggers or ()),
            as_json=as_json,
        )
    )


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


@app.command(epilog="Example: edgeproof plan recipes/digits.toml.\n\n" + EXIT_CODES)
def plan(
    recipe: RecipePath,
    target: DeploymentName = None,
    overrides: Overrides = None,
    devices: DevicesFile = None,
    build: Build = Path("build"),
    as_json: AsJson = False,
) -> None:
    """Show what a deploy would run, what is kept from before, and why something is stale."""
    from pipeline.verbs.deploy import Selection, run_plan

    raise typer.Exit(run_plan(Selection(recipe, target, tuple(overrides or ()), build, devices), as_json=as_json))


@app.command(
    epilog="Example: edgeproof profile model.onnx --target RUNTIME --shape input=1x3x32x32 --max-ms 5. "
    "Without --max-ms the exit code is 0 once figures are printed.\n\n" + EXIT_CODES
)
def profile(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX file.", show_default=False)],
    target: Annotated[str, typer.Option("--target", "-t", metavar="RUNTIME", help="The runtime.", show_default=False)],
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="NAME=1x3x32x32", help="Shape of an input with open dimensions (else 1)."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads of one inference.")] = 1,
    precision: Annotated[str, typer.Option(help="Float type that is pinned: fp32, bf16 or fp16.")] = "fp32",
    max_ms: Annotated[
        float | None, typer.Option("--max-ms", metavar="MS", help="Latency budget in ms; none if left out.")
    ] = None,
    percentile: Annotated[float, typer.Option(help="Percentile that --max-ms is for.")] = 99.0,
    max_seconds: Annotated[float, typer.Option("--max-seconds", metavar="S", help="Stop sampling after so long.")] = 30,
    device: DeviceName = "local",
    devices: DevicesFile = None,
    as_json: AsJson = False,
) -> None:
    """Measure the latency of any ONNX model on this machine or another device, without a recipe."""
    from pipeline.verbs.profile import LatencyRequest, run_profile

    request = LatencyRequest(
        model=model,
        runtime=target,
        shapes=tuple(shape or ()),
        threads=threads,
        precision=precision,
        max_ms=max_ms,
        percentile=percentile,
        max_seconds=max_seconds,
        device=device,
        devices=devices,
    )
    raise typer.Exit(run_profile(request, as_json=as_json))


@app.command(
    epilog="Example: edgeproof quantize model.onnx --data images/ --target RUNTIME --mean 0.485,0.456,0.406 "
    "--std 0.229,0.224,0.225. The exit code is 0 where int8 is faster than float, 3 where it is slower, 5 where the "
    "measurement does not tell; the file is written in any case.\n\n" + EXIT_CODES
)
def quantize(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any float ONNX file.", show_default=False)],
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="DIR", help="Images, or .npy and .npz arrays named as the inputs.", show_default=False
        ),
    ],
    target: Annotated[str, typer.Option("--target", "-t", metavar="RUNTIME", help="The runtime.", show_default=False)],
    method: Annotated[
        str,
        typer.Option(
            help="How ranges are found: min_max, moving_average, percentile, entropy, mean_squared_error; or auto: by "
            "what suits the model, judged on a part of the samples that ranges do not come from."
        ),
    ] = "auto",
    samples: Annotated[int, typer.Option(min=1, help="Calibrate on so many samples at most.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the choice of samples.")] = 0,
    mean: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Subtracted from pixels, one value or one a channel.")
    ] = None,
    std: Annotated[str | None, typer.Option(metavar="R,G,B", help="Pixels are divided by it, after --mean.")] = None,
    pixels: Annotated[
        str | None, typer.Option(metavar="0..1|0..255", help="Range of pixels before --mean and --std; else 0..1.")
    ] = None,
    channels: Annotated[
        str | None, typer.Option(metavar="rgb|bgr", help="Order of the channels that the model takes; else rgb.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(metavar="nchw|nhwc", help="Layout of the input, where its shape does not tell.")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="NAME=1x3x32x32", help="Shape of an input with open dimensions."),
    ] = None,
    float_layers: Annotated[
        list[str] | None,
        typer.Option("--float", metavar="LAYER", help="Keep a layer, or all that begin so, in float; repeatable."),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="Of the file that is written: int8; or auto: the fastest of all that the runtime has, whole or mixed "
            "layer by layer, that holds --max-drop and --max-error-db; never slower than float."
        ),
    ] = "int8",
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            metavar="FRACTION",
            min=0,
            max=1,
            help="With auto: held-out samples whose largest output may be another than the float model's; else 0.02.",
        ),
    ] = None,
    max_error_db: Annotated[
        float | None,
        typer.Option(
            "--max-error-db",
            metavar="DB",
            help="With auto: error of the outputs over their mean square; else -20 where no output is one of classes.",
        ),
    ] = None,
    search_seconds: Annotated[
        float, typer.Option("--search-seconds", metavar="S", min=1, help="With auto: of the search.")
    ] = 120,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Show what each layer loses alone in int8, and what it costs.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads of one inference.")] = 1,
    max_seconds: Annotated[float, typer.Option("--max-seconds", metavar="S", min=1, help="Of measuring latency.")] = 30,
    accept_slower: Annotated[
        bool, typer.Option("--accept-slower", help="Exit with 0 also where int8 is slower, or that is undecided.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Where the int8 file goes, its verdict beside it; else build/quantized/."
        ),
    ] = None,
    device: DeviceName = "local",
    devices: DevicesFile = None,
    build: Build = Path("build"),
    as_json: AsJson = False,
) -> None:
    """Quantize any float ONNX file to int8 for a runtime, and measure what that costs and gains, without a recipe."""
    from pipeline.verbs.quantize import QuantizeRequest, run_quantize

    request = QuantizeRequest(
        model=model,
        data=data,
        runtime=target,
        method=method,
        samples=samples,
        seed=seed,
        mean=mean,
        std=std,
        pixels=pixels,
        channels=channels,
        layout=layout,
        shapes=tuple(shape or ()),
        float_layers=tuple(float_layers or ()),
        precision=precision,
        threads=threads,
        max_seconds=max_seconds,
        max_drop=max_drop,
        max_error_db=max_error_db,
        search_seconds=search_seconds,
        sensitivity=sensitivity,
        accept_slower=accept_slower,
        out=out,
        device=device,
        devices=devices,
        build=build,
    )
    raise typer.Exit(run_quantize(request, as_json=as_json))


@app.command(
    epilog="Example: edgeproof read tegrastats.txt. The exit code is 1 where a log is refused.\n\n" + EXIT_CODES
)
def read(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG...", help="Logs of other tools.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Read logs of benchmark tools and board monitors, each by its content, in one form."""
    from pipeline.verbs.read_logs import run_read

    raise typer.Exit(run_read(logs, as_json=as_json))


@app.command(
    epilog="Example: edgeproof check model.onnx --target RUNTIME --shape input=1x3x320x320. The exit code is 0 where "
    "the runtime takes the model, 1 where it does not, 5 where its tools gave no answer.\n\n" + EXIT_CODES
)
def check(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX file.", show_default=False)],
    target: Annotated[str, typer.Option("--target", "-t", metavar="RUNTIME", help="The runtime.", show_default=False)],
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="NAME=1x3x32x32", help="Shape of an input with open dimensions."),
    ] = None,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", metavar="S", min=1, help="Give up after so long.")
    ] = 300,
    as_json: AsJson = False,
) -> None:
    """Ask whether a runtime accepts an ONNX file, and why not, without its device; measures nothing."""
    from pipeline.verbs.check import CheckRequest, run_check

    request = CheckRequest(model=model, runtime=target, shapes=tuple(shape or ()), max_seconds=max_seconds)
    raise typer.Exit(run_check(request, as_json=as_json))


@app.command(epilog="Example: edgeproof show build/digits/cpu.\n\n" + EXIT_CODES)
def show(
    report: Annotated[
        Path, typer.Argument(metavar="REPORT", help="report.json, or the folder that holds it.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Print the verdict table of an earlier deploy, whatever it was; 0 if there is one to print."""
    from pipeline.verbs.show import run_show

    raise typer.Exit(run_show(report, as_json=as_json))


@app.command(epilog="Example: edgeproof verify build/digits/cpu/release/digits-0.1.0-cpu.zip.\n\n" + EXIT_CODES)
def verify(
    release: Annotated[Path, typer.Argument(metavar="RELEASE", help="A release, one file.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Check every byte of a release against its manifest, offline; 1 where anything differs."""
    from pipeline.verbs.show import run_verify

    raise typer.Exit(run_verify(release, as_json=as_json))


@app.command(epilog="Example: edgeproof methods dkd.\n\n" + EXIT_CODES)
def methods(
    kind: Annotated[
        str | None, typer.Argument(metavar="[KIND]", help="Show this one with all its settings.", show_default=False)
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option("--markdown", metavar="PAGE.md", help="Write the table anew into a page that has its markers."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the distillation losses that a recipe can name: family, formula, source, cost, when to use each."""
    from pipeline.verbs.methods import run_methods

    raise typer.Exit(run_methods(kind, page=page, as_json=as_json))


@app.command(epilog="Example: edgeproof init my-model && cd my-model && edgeproof deploy recipe.toml.\n\n" + EXIT_CODES)
def init(folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where to write.")] = Path(".")) -> None:
    """Write a commented recipe for your own model and images to start from; overwrites nothing."""
    from pipeline.verbs.init import run_init

    raise typer.Exit(run_init(folder))


@devices_app.command("list", epilog="Example: edgeproof devices list.\n\n" + EXIT_CODES)
def devices_list(devices: DevicesFile = None, as_json: AsJson = False) -> None:
    """List the devices of the inventory, how each is reached, and its groups."""
    from pipeline.verbs.devices import run_list

    raise typer.Exit(run_list(devices, as_json=as_json))


@devices_app.command("add", epilog="Example: edgeproof devices add jetson user@192.168.1.20.\n\n" + EXIT_CODES)
def devices_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What recipes call it.", show_default=False)],
    address: Annotated[str, typer.Argument(metavar="USER@HOST", help="Who logs in where.", show_default=False)],
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Of its ssh server.")] = None,
    key: Annotated[str | None, typer.Option(metavar="FILE", help="Private key; else your agent's.")] = None,
    known_hosts: Annotated[
        str | None, typer.Option("--known-hosts", metavar="FILE", help="Known host keys; else yours.")
    ] = None,
    jump: Annotated[str | None, typer.Option(metavar="USER@HOST", help="Host to go through.")] = None,
    python: Annotated[str | None, typer.Option(metavar="PATH", help="Its Python; else python3.")] = None,
    work_folder: Annotated[
        str | None, typer.Option("--work-folder", metavar="DIR", help="Where our files lie there; else ~/.edgeproof.")
    ] = None,
    devices: DevicesFile = None,
) -> None:
    """Add a device to the inventory, which begins as devices.toml in this folder."""
    from pipeline.verbs.devices import AddRequest, run_add

    request = AddRequest(
        name=name,
        address=address,
        port=port,
        key=key,
        known_hosts=known_hosts,
        jump=jump,
        python=python,
        work_folder=work_folder,
        devices=devices,
    )
    raise typer.Exit(run_add(request))


@devices_app.command("check", epilog="Example: edgeproof devices check jetson --json.\n\n" + EXIT_CODES)
def devices_check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Devices or groups; all if left out.")
    ] = None,
    devices: DevicesFile = None,
    as_json: AsJson = False,
) -> None:
    """Connect to devices and print what is there, and what would stop a deploy and how to mend it; then 4."""
    from pipeline.verbs.devices import run_check

    raise typer.Exit(run_check(tuple(names or ()), devices, as_json=as_json))


@devices_app.command("clean", epilog="Example: edgeproof devices clean jetson.\n\n" + EXIT_CODES)
def devices_clean(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The device.", show_default=False)],
    devices: DevicesFile = None,
) -> None:
    """Remove from a device what is kept there between jobs: the runner and models; installed releases stay."""
    from pipeline.verbs.devices import run_clean

    raise typer.Exit(run_clean(name, devices))


@store_app.command("show", epilog="Example: edgeproof store show.\n\n" + EXIT_CODES)
def store_show(build: Build = Path("build"), as_json: AsJson = False) -> None:
    """List what is kept: stage, key, size, age and last use."""
    from pipeline.verbs.store import run_show

    raise typer.Exit(run_show(build, as_json=as_json))


@store_app.command("prune", epilog="Example: edgeproof store prune --days 30.\n\n" + EXIT_CODES)
def store_prune(
    build: Build = Path("build"),
    days: Annotated[int, typer.Option(min=0, help="Remove what was not used for so many days.")] = 30,
) -> None:
    """Remove results that were not used for some days, interrupted runs and damaged entries."""
    from pipeline.verbs.store import run_prune

    raise typer.Exit(run_prune(build, days))


@store_app.command("clear", epilog="Example: edgeproof store clear.\n\n" + EXIT_CODES)
def store_clear(build: Build = Path("build")) -> None:
    """Remove everything that is kept; the next deploy trains anew. Reports and releases stay."""
    from pipeline.verbs.store import run_clear

    raise typer.Exit(run_clear(build))


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; the one place where errors become messages."""
    is_debug = "--debug" in arguments
    try:
        return _invoke([argument for argument in arguments if argument != "--debug"])
    except BrokenPipeError:  # `edgeproof ... | head`: who read has gone, and nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        _tell(_in_words(error), is_debug)
        return 1
    except _edgeproof_error() as error:
        _tell(str(error), is_debug)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort: a defect of ours, or of a file that the recipe names
        _tell(_unexpected(error), is_debug)
        return 1


def _invoke(arguments: list[str]) -> int:
    """Run typer, which always ends by SystemExit: with a verb's code, 2 after wrong usage, 130 after Ctrl-C."""
    try:
        typer.main.get_command(app)(arguments, prog_name="edgeproof")
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 0
        if code == 130:
            typer.echo(INTERRUPTED, err=True)
        sys.stdout.flush()
        return code
    return 0


def _edgeproof_error() -> "type[EdgeproofError]":
    """Import the exception only when one was raised: its package needs NumPy, and `--help` should not."""
    from targets.errors import EdgeproofError

    return EdgeproofError


def _unexpected(error: Exception) -> str:
    """Say where an error came from that nobody expected: the last line of code that is no library's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and "<" not in frame.filename] or frames
    reason = (str(error).strip().splitlines() or [""])[0]
    return (
        f"{own[-1].filename}:{own[-1].lineno}: expected no error here; got {type(error).__name__}: {reason}. Mend it "
        "if the file is yours; otherwise it is a defect of edgeproof. --debug shows the traceback"
    )


def _tell(message: str, is_debug: bool) -> None:
    if is_debug:
        traceback.print_exc()
    typer.echo(f"edgeproof: {message}", err=True)


def _in_words(error: OSError) -> str:
    where = error.filename or os.getcwd()
    return f"{where}: {_DISK_ADVICE.get(error.errno or 0, error.strerror or str(error))}"
