"""Our profile of any ONNX file beside OpenVINO's benchmark_app: one stream, synchronous, floats pinned.

Run: PYTHONPATH=. .venv/bin/python benchmarks/bench_profile.py [--rounds 5] [--threads 1] [MODEL.onnx ...]
Without models, those in EDGEPROOF_DATA/onnx_models that a test device can run at once are taken.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.side_by_side import Row, interleave, publish
from pipeline.budget import Protocol
from pipeline.measuring.quantiles import percentile_of
from pipeline.stages.profile_latency import profile_latency
from targets import OpenVino
from targets.devices.device import Device, open_device
from targets.target import RunOptions

MODELS = ("yunet_n_320_320", "ultraface_rfb_320", "ultraface_slim_320_simplified", "fastestdet", "sinet_softmax")
SECONDS = 4.0


def main() -> None:
    """Compare the medians of both tools on each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        device = open_device("local", Path(work))
        rows = [
            compare(model, device, arguments.threads, arguments.rounds) for model in arguments.models or find_models()
        ]
    notes = [
        f"openvino {OpenVino().runtime_version()}, {arguments.threads} thread(s), median latency, about "
        f"{SECONDS:g} s each a round, interleaved; benchmark_app -hint none -api sync -nstreams 1 -infer_precision f32",
    ]
    publish("profile", "ms, p50", rows, notes)


def find_models() -> list[Path]:
    """Return the models of the data folder; ends the program where it is not there."""
    folder = Path(os.environ.get("EDGEPROOF_DATA", "")) / "onnx_models"
    models = [folder / f"{name}.onnx" for name in MODELS]
    if not all(model.is_file() for model in models):
        sys.exit(f"skipped: set EDGEPROOF_DATA to a folder with onnx_models/{MODELS[0]}.onnx, or name models")
    return models


def compare(model: Path, device: Device, threads: int, rounds: int) -> Row:
    """Return ours beside the peer's, in milliseconds."""
    return interleave(
        model.stem, lambda: our_p50_ms(model, device, threads), lambda: benchmark_app_p50_ms(model, threads), rounds
    )


def our_p50_ms(model: Path, device: Device, threads: int) -> float:
    """Return the median of one profile."""
    protocol = Protocol(max_seconds=SECONDS, min_samples=100_000, processes=1)
    profile = profile_latency(model, OpenVino(), device, RunOptions(threads=threads), protocol=protocol)
    return percentile_of(profile.samples_ns / 1e6, 50)


def benchmark_app_p50_ms(model: Path, threads: int) -> float:
    """Return the median that benchmark_app prints."""
    options = ["-d", "CPU", "-hint", "none", "-api", "sync", "-nstreams", "1", "-infer_precision", "f32"]
    options += ["-nthreads", str(threads)]
    command = [
        str(Path(sys.executable).with_name("benchmark_app")),
        "-m",
        str(model),
        "-d",
        "CPU",
        "-t",
        f"{SECONDS:g}",
    ]
    printed = subprocess.run([*command, *options], capture_output=True, text=True, check=True).stdout
    found = re.search(r"Median:\s+([\d.]+) ms", printed)
    if not found:
        sys.exit(f"{model}: benchmark_app printed no median:\n{printed[-500:]}")
    return float(found.group(1))


if __name__ == "__main__":
    main()
