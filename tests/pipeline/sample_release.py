"""A small release, and what it is made of."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from pipeline.artifacts import CompiledModel, Release
from pipeline.budget import Budget, LatencyBudget
from pipeline.measuring.verdict import Check, Verdict
from pipeline.release.card import Card, DataFacts, NetworkFacts
from pipeline.release.golden import make_golden
from pipeline.release.licences import Licences
from pipeline.release.manifest import Interface
from pipeline.report.report import AccuracyFigures, ArtifactFigures, ExecutedFigures, Report
from pipeline.stages.package_release import Papers, package_release
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


CARD = Card(
    description="Reads digits.",
    intended_use=None,
    limitations=("never saw letters",),
    task="classification",
    data=DataFacts(
        name="digits", train_images=900, validation_images=100, test_images=360, image_shape=(8, 8, 1), classes=3
    ),
    teachers=(NetworkFacts(architecture="resnet (depth 18)", origin="trained from nothing for 3 epochs"),),
    student=NetworkFacts(architecture="resnet (depth 8)", origin="distilled for 3 epochs", parameters=1234),
    losses=("kd",),
    quantization="trained on in int8",
)
LICENCES = Licences(model="Apache-2.0", teacher="MIT", dependencies={"onnxruntime": "MIT"})


def golden(interface: Interface = INTERFACE) -> dict[str, bytes]:
    """Return what the model is said to have answered."""
    random = np.random.default_rng(0)
    channels = len(interface.processing.scale)
    images_NHWC = random.integers(0, 256, (8, 8, 8, channels), np.uint8)
    logits_NK = random.normal(size=(8, len(interface.labels))).astype(np.float32)
    return make_golden(interface, images_NHWC, logits_NK, step=0.01, noise=1e-4)


def package(folder: Path, model: CompiledModel, report: Report, interface: Interface = INTERFACE) -> Release:
    papers = Papers(
        interface=interface,
        budget=Budget(latency=LatencyBudget(max_ms=5)),
        card=CARD,
        licences=LICENCES,
        golden=golden(interface),
    )
    return package_release(folder, model, papers, report=report, report_html=b"<p>page</p>")
