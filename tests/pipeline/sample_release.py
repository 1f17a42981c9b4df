"""A small release, and what it is made of."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from pipeline.artifacts import CompiledModel, Release
from pipeline.budget import Budget, LatencyBudget
from pipeline.measuring.verdict import Check, Verdict
from pipeline.release.manifest import Interface
from pipeline.report.report import AccuracyFigures, ArtifactFigures, ExecutedFigures, Report
from pipeline.stages.package_release import package_release
from targets.processing import Processing
from targets.target import TensorSpec

CREATED_AT = "2026-03-01T13:37:43+01:00"
TIME = datetime(2026, 3, 1, 12, 37, 43, tzinfo=UTC)
CHECK = Check(
    name="accuracy",
    measured=0.975,
    interval=(0.95, 0.99),
    limit=0.97,
    bound="min",
    unit="fraction",
    verdict=Verdict.PASS,
    note="",
)
INTERFACE = Interface(
    inputs=(TensorSpec("image", "float32", (None, 1, 8, 8)),),
    outputs=(TensorSpec("logits", "float32", (None, 3)),),
    processing=Processing(scale=(1 / 255,), bias=(-0.5,)),
    labels=("none", "one", "größer"),
)


def compiled_model(folder: Path, content: bytes = b"model " * 10, runtime: str = "null") -> CompiledModel:
    path = folder / "compiled.onnx"
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return CompiledModel(path, sha256, len(content), runtime, "1.2", "d" * 64, layers=())


def passed_report(model: CompiledModel, check: Check = CHECK) -> Report:
    return Report(
        created_at=CREATED_AT,
        recipe="digits",
        version="0.1.0",
        deployment="cpu",
        target=model.runtime,
        device="local",
        precision="int8",
        licence="Apache-2.0",
        verdict=check.verdict,
        accepted_undecided=False,
        untrained=False,
        artifact=ArtifactFigures(path="compiled.onnx", sha256=model.sha256, size_bytes=model.size_bytes),
        accuracy=AccuracyFigures(
            metric="top1", teacher=0.99, student=0.98, quantized=0.976, on_device=0.975, num_samples=360
        ),
        parity=None,
        latency=None,
        memory=None,
        load=None,
        executed=ExecutedFigures(
            num_operators=0, int8_operators=0, int8_share=None, int8_time_share=None, operators=()
        ),
        checks=(check,),
        stages=(),
        lineage={"data": "a" * 64},
        context={"cpu": "some", "load": [0.5, {"clock": 1}]},
    )


def package(folder: Path, model: CompiledModel, report: Report, interface: Interface = INTERFACE) -> Release:
    budget = Budget(latency=LatencyBudget(max_ms=5))
    return package_release(folder, model, report=report, report_html=b"<p>page</p>", interface=interface, budget=budget)
