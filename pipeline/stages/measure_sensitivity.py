"""Stage: what each layer loses alone in int8, and what it costs in float and in int8 on the device.

Rule: errors are estimated on few samples; times are the runtime's own counters, which only compare with each other.
"""

import math
import tempfile
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from calibration.scheme import Scheme
from pipeline.artifacts import LayerSensitivity, OnnxFile, Ranges, Sensitivity
from pipeline.export.operators import absorbed_input, constant
from pipeline.export.place_onnx import quantizable_layers
from pipeline.export.source import with_shapes
from pipeline.fusion.file_graph import read_graph
from pipeline.precision.plan import Plan
from pipeline.precision.search import sensitivity
from pipeline.precision.workbench import Exam, OnnxWorkbench
from pipeline.progress import OnProgress, say_nothing
from pipeline.site import Site
from targets.target import Layer, Target

STAGE_VERSION = 1
TOOLCHAIN = ("onnx", "onnx-ir", "numpy")


def measure_sensitivity(
    out_dir: Path,
    prepared: OnnxFile,
    ranges: Ranges,
    target: Target,
    site: Site,
    exam: Exam,
    *,
    threads: int,
    scheme: Scheme | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    on_progress: OnProgress = say_nothing,
) -> Sensitivity:
    """Estimate the error of each layer alone in int8, and read its time from the executed float and int8 models.

    Args:
        out_dir: stays empty.
        prepared: the float model, from `prepare_onnx`.
        ranges: of its tensors.
        target: the runtime.
        site: where times are counted.
        exam: samples, of which the first are used, with labels or without.
        threads: of one inference.
        scheme: the grid; None: the one that the target's students are trained on.
        shapes: of inputs whose dimensions the model leaves open, for which times are counted.
        on_progress: hears of each layer.

    Raises:
        ModelRefused: the runtime refuses the float or the int8 model.
        DeviceError: a job failed.
    """
    graph = ir.from_proto(onnx.load(str(prepared.path))).graph
    layers = quantizable_layers(graph)
    with tempfile.TemporaryDirectory(prefix="sensitivity-") as name:
        folder = Path(name)
        workbench = OnnxWorkbench(prepared, ranges, target, site.device, threads, exam, folder, scheme=scheme)
        found = sensitivity(workbench, layers, layers, on_step=lambda done: on_progress(done, len(layers)))
        owners = _owners(graph, layers)
        float_ms, int8_ms = (_times(workbench, plan, owners, shapes or {}) for plan in (Plan("fp32"), Plan("int8")))
    kinds = {str(node.name): node.op_type for node in graph}
    weights = _weight_bytes(graph)
    total = math.fsum(weights.values()) or 1.0
    rows = (
        LayerSensitivity(
            name=layer,
            op_type=kinds[layer],
            error_db=quality.error_db,
            drop=quality.drop,
            float_ms=float_ms.get(layer),
            int8_ms=int8_ms.get(layer),
            weight_share=weights.get(layer, 0) / total,
        )
        for layer, quality in found
    )
    return Sensitivity(tuple(rows), workbench.num_estimated, exam.labels is not None)


def _times(
    workbench: OnnxWorkbench, plan: Plan, owners: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, float]:
    model = workbench.build(plan)
    if shapes:  # a runtime that lists what it executes would take open dimensions as 1
        fixed = workbench.folder / f"fixed_{plan.precision}.onnx"
        onnx.save(with_shapes(onnx.load(str(model)), shapes), fixed)
        model = fixed
    artifact = workbench.folder / f"executed_{plan.precision}{model.suffix}"
    compiled = workbench.device.compile_model(workbench.target, model, artifact, workbench.options(plan))
    return times_of(compiled.layers, onnx.load(str(model), load_external_data=False), owners)


def times_of(executed: Sequence[Layer], model: onnx.ModelProto, owners: Mapping[str, str]) -> dict[str, float]:
    """Return the counted time of each layer, in ms; Q/DQ count for none, a fused operator for its first layer.

    Args:
        executed: what the runtime ran.
        model: the file that it ran.
        owners: the layer of each of the model's nodes that belongs to one.
    """
    file = read_graph(model)
    times: dict[str, float] = defaultdict(float)
    for each in executed:
        nodes = [file.find(source) for source in each.sources]
        named = [owners[node] for node in nodes if node is not None and node in owners]
        if named and each.time_ms is not None and not each.is_conversion:
            times[named[0]] += each.time_ms
    return dict(times)


def _owners(graph: ir.Graph, layers: Collection[str]) -> dict[str, str]:
    """Return the layer of each node: itself, or the one that a runtime fuses it into."""
    owners: dict[str, str] = {}
    for node in graph:
        source = absorbed_input(node)
        before = None if source is None else source.producer()
        if node.name in layers:
            owners[str(node.name)] = str(node.name)
        elif before is not None and before.name in owners and node.op_type in ("Relu", "Clip", "Add"):
            owners[str(node.name)] = owners[str(before.name)]
    return owners


def _weight_bytes(graph: ir.Graph) -> dict[str, int]:
    """Return the bytes of each node's constants of at least two dimensions."""
    arrays = {str(node.name): [constant(value) for value in node.inputs] for node in graph}
    return {
        name: sum(array.nbytes for array in found if isinstance(array, np.ndarray) and array.ndim > 1)
        for name, found in arrays.items()
    }
