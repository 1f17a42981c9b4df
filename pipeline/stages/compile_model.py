"""Stage: compiles an ONNX file on the device where it will run."""

import hashlib
from pathlib import Path

from pipeline.artifacts import CompiledModel, OnnxFile, OnnxModel
from pipeline.export.source import Source
from pipeline.site import Site
from targets.target import RunOptions, Target

STAGE_VERSION = 2
TOOLCHAIN = ()


def compile_model(
    out_dir: Path, model: OnnxModel | OnnxFile | Source, target: Target, site: Site, options: RunOptions
) -> CompiledModel:
    """Compile `model` and list the operators that are executed.

    Raises:
        DeviceError: the device, its runtime or the job failed.
        ModelRefused: the runtime refuses the model; quotes its reason.
    """
    path = out_dir / f"model{target.artifact_suffix}"
    compiled = site.device.compile_model(target, model.path, path, options)
    return CompiledModel(
        path=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size_bytes=path.stat().st_size,
        runtime=target.kind,
        runtime_version=compiled.runtime_version,
        device=site.facts.digest,
        layers=compiled.layers,
    )
