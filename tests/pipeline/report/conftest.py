"""An invented but plausible deployment: a small classifier on four cores, one budget missed, one undecided."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts import (
    Accuracy,
    CompiledModel,
    Conversion,
    FloatIsland,
    FusionProof,
    Hop,
    LatencyProfile,
    Parity,
)
from pipeline.budget import (
    AccuracyBudget,
    Budget,
    LatencyBudget,
    LoadBudget,
    MemoryBudget,
    ParityBudget,
    SizeBudget,
)
from pipeline.report.build import Evidence, Subject, build_report
from pipeline.report.report import Report, StageFigures
from pipeline.stages.check_budget import check_budget
from targets.target import Layer

BUDGET = Budget(
    latency=LatencyBudget(max_ms=0.4),
    accuracy=AccuracyBudget(min=0.97, max_drop_student=0.01),
    parity=ParityBudget(max_abs_diff=0.5, min_agreement=0.995),
    size=SizeBudget(max_bytes=100_000),
    memory=MemoryBudget(max_bytes=150_000_000),
    load=LoadBudget(max_ms=200),
)


ISLAND = FloatIsland(
    subject="HardSwish",
    reason="no integer kernel",
    remedy="use ReLU6 in the student",
    is_inside=True,
    operators=("HardSwish",),
    nodes=("blocks.0/HardSwish <1>",),
    layers=("HardSigmoid_1", "Mul_2"),
    num_conversions=2,
    time_share=0.2,
)
END = replace(ISLAND, subject="Softmax", reason="an output of the graph", is_inside=False, time_share=0.3)
FUSION = FusionProof(
    runtime="null",
    num_operators=13,
    int8_operators=11,
    float_operators=1,
    conversions=1,
    int8_time_share=0.7,
    float_time_share=0.25,
    conversion_time_share=0.05,
    strays=(Conversion("conv3/QuantizeLinear", "QuantizeLinear", "conv3", "add1", 0.01),),
    islands=(ISLAND, replace(ISLAND, nodes=("blocks.1/HardSwish",), time_share=0.14), END),
    has_edges=True,
)


def correct(num_correct: int) -> np.ndarray:
    return np.arange(360) < num_correct


@pytest.fixture(scope="session")
def profile() -> LatencyProfile:
    rng = np.random.default_rng(0)
    samples_ms = 0.12 * rng.lognormal(0, 0.12, 1024) + (rng.random(1024) < 0.012) * rng.exponential(0.3, 1024)
    return LatencyProfile(
        scope="model",
        samples_ns=(samples_ms * 1e6).astype(np.int64),
        block_sizes=(512, 512),
        warmup_runs=240,
        load_ms=(31.0, 29.5),
        peak_bytes=96_000_000,
        baseline_bytes=71_000_000,
        seconds=3.2,
        threads=1,
        protocol="each inference timed host to host, scope model, 1 thread(s), floats pinned to fp32",
        context={
            "cpu": "Cortex-A76",
            "cores": 4,
            "before": {"governor": "performance", "load": [0.1, 0.2]},
            "temperature": "unavailable: no thermal zone <here>",
        },
        measured_at="2026-01-02T03:04:05+00:00",
    )


@pytest.fixture(scope="session")
def evidence(profile: LatencyProfile) -> Evidence:
    return Evidence(
        compiled=CompiledModel(
            path=Path("model.onnx"),
            sha256="ab" * 32,
            size_bytes=104_640,
            runtime="null",
            runtime_version="1.2.3",
            device="cd" * 32,
            layers=(
                *(Layer(f"conv{i}", "QLinearConv", "int8", 0.011) for i in range(7)),
                *(Layer(f"add{i}", "QLinearAdd", "int8", 0.002) for i in range(3)),
                Layer("quantize", "QuantizeLinear", "fp32", 0.001),
                Layer("pool", "GlobalAveragePool", "fp32", 0.004),
                Layer("fc", "QGemm", "int8", 0.002),
            ),
        ),
        artifact_path="release/model.onnx",
        fusion=FUSION,
        latency=profile,
        accuracy=Accuracy("top1", correct(356), correct(355), correct(354), correct(353)),
        parity=Parity(Hop(2e-6, 1.0, 360), Hop(0.031, 359 / 360, 360)),
    )


@pytest.fixture(scope="session")
def report(evidence: Evidence) -> Report:
    checks = check_budget(
        BUDGET,
        parity=evidence.parity,
        accuracy=evidence.accuracy,
        latency=evidence.latency,
        size_bytes=evidence.compiled.size_bytes,
    )
    stages = [
        StageFigures(name="train_teacher", seconds=61.2, cached=True, key="0" * 64),
        StageFigures(name="distill_student", seconds=48.0, cached=False, key="1" * 64),
        StageFigures(name="train_quantized", seconds=19.3, cached=False, key="2" * 64),
        StageFigures(name="export_onnx", seconds=2.4, cached=False, key="3" * 64),
        StageFigures(name="compile_model", seconds=0.31, cached=False, key="4" * 64),
        StageFigures(name="profile_latency", seconds=3.2, cached=False, key=None),
    ]
    subject = Subject(
        recipe="digits <1>",
        version="1.0.0",
        deployment="cpu",
        target="null",
        device="local",
        precision="int8",
        licence="Apache-2.0",
    )
    return build_report(
        subject,
        evidence,
        checks,
        stages=stages,
        created_at="2026-01-02T03:05:00+00:00",
        latency_budget=BUDGET.latency,
        lineage={"data": "e" * 64, "teacher": "f" * 64},
    )
