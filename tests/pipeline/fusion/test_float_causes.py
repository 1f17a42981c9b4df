"""What targets declare of float operators is true: each entry is run, on the runtime that declares it."""

from pathlib import Path

import onnx
import pytest
from micro_nets import BUILDS, between_convolutions, one, resized

from pipeline.artifacts import FusionProof
from pipeline.fusion.prove import prove_fusion
from targets import AnyTarget, OnnxRuntime, OpenVino
from targets.fusion import FloatCause
from targets.target import RunOptions

RUNTIMES = (OnnxRuntime(), OpenVino())
DECLARED = [(target, cause) for target in RUNTIMES for cause in target.float_causes]


def prove(target: AnyTarget, proto: onnx.ModelProto, folder: Path, plan: frozenset[str] = frozenset()) -> FusionProof:
    pytest.importorskip(target.kind)
    path = folder / "model.onnx"
    onnx.save(proto, path)
    return prove_fusion(target.inspect(path, RunOptions()), path, target, plan=plan)


@pytest.mark.parametrize(
    ("target", "cause"), DECLARED, ids=[f"{target.kind}-{'+'.join(cause.operators)}" for target, cause in DECLARED]
)
def test_a_declared_cause_makes_a_float_island(target: AnyTarget, cause: FloatCause, tmp_path: Path) -> None:
    proof = prove(target, between_convolutions(BUILDS[cause.operators], target.encoding.signed), tmp_path)
    inside = [island for island in proof.islands if island.is_inside]
    assert [(island.subject, island.reason, island.remedy) for island in inside] == [
        (cause.name, cause.reason, cause.remedy)
    ]
    assert set(cause.operators) <= set(inside[0].operators)
    assert proof.int8_operators >= 2


@pytest.mark.parametrize("target", RUNTIMES, ids=lambda target: target.kind)
def test_a_remedy_leaves_no_island(target: AnyTarget, tmp_path: Path) -> None:
    kinds = {"LeakyRelu": one("LeakyRelu"), "Sigmoid": one("Sigmoid"), "nearest": resized("nearest")}
    for build in kinds.values():
        proof = prove(target, between_convolutions(build, target.encoding.signed), tmp_path)
        assert not [island for island in proof.islands if island.is_inside]


def test_one_runtimes_cause_is_fused_by_the_other(tmp_path: Path) -> None:
    elsewhere = [cause for cause in OnnxRuntime.float_causes if "openvino" in cause.remedy]
    assert len(elsewhere) > 5
    for cause in elsewhere:
        if cause.operators in (("HardSigmoid", "Mul"), ("Erf",)):
            continue  # only the operator written as one is
        proof = prove(OpenVino(), between_convolutions(BUILDS[cause.operators], "int8"), tmp_path)
        assert not [island for island in proof.islands if island.is_inside], cause.name
