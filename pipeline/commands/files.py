"""Verbs about one file: a model, a report, a release, or what another tool wrote."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import (
    EXIT_CODES,
    AsJson,
    Build,
    DeviceName,
    DevicesFile,
    RuntimeName,
    Shapes,
    Threads,
)

app = typer.Typer()


@app.command(
    epilog="Example: edgeproof profile model.onnx --target RUNTIME --shape input=1x3x32x32 --max-ms 5. "
    "An open dimension without --shape is 1. Without --max-ms the exit code is 0 once figures are printed.\n\n"
    + EXIT_CODES
)
def profile(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX file.", show_default=False)],
    target: RuntimeName,
    shape: Shapes = None,
    threads: Threads = 1,
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
    target: RuntimeName,
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
    shape: Shapes = None,
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
    threads: Threads = 1,
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
    epilog="Example: edgeproof check model.onnx --target RUNTIME --shape input=1x3x320x320. The exit code is 0 where "
    "the runtime takes the model, 1 where it does not, 5 where its tools gave no answer.\n\n" + EXIT_CODES
)
def check(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX file.", show_default=False)],
    target: RuntimeName,
    shape: Shapes = None,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", metavar="S", min=1, help="Give up after so long.")
    ] = 300,
    as_json: AsJson = False,
) -> None:
    """Ask whether a runtime accepts an ONNX file, and why not, without its device; measures nothing."""
    from pipeline.verbs.check import CheckRequest, run_check

    request = CheckRequest(model=model, runtime=target, shapes=tuple(shape or ()), max_seconds=max_seconds)
    raise typer.Exit(run_check(request, as_json=as_json))


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


@app.command(
    epilog="Example: edgeproof verify digits-0.1.0.aar --key signing_key.pub.pem. Without --key an archive that is not "
    "signed is no error, and the last line says so.\n\n" + EXIT_CODES
)
def verify(
    release: Annotated[
        Path, typer.Argument(metavar="FILE", help="A release, AAR, wheel, npm archive or zip.", show_default=False)
    ],
    key: Annotated[
        Path | None,
        typer.Option(
            "--key", metavar="PUBLIC.pem", help="Demand a signature of this key; one in the archive is never believed."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every byte of a release or package against its manifest, offline; 1 where anything differs."""
    from pipeline.verbs.verify import run_verify

    raise typer.Exit(run_verify(release, key, as_json=as_json))
