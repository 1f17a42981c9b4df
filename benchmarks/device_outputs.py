"""Whether int8 files answer on a device as they do here: bit by bit, else which tensor parts first, and by how much.

Run: PYTHONPATH=. .venv/bin/python benchmarks/device_outputs.py MODEL.onnx... --device NAME [--devices FILE]
         [--target KIND] [--images DIR] [--samples 64]

Each file runs here and on the device on the same inputs: arrays of DIR (.npy, named as the input) or random ones.
Outputs are compared first. Then every tensor of integers that a QuantizeLinear gives becomes an output too, which
leaves a runtime's integer kernels as they are, and the first in the graph's order whose codes differ is named, with
the largest difference in steps. Where no Add is involved all must be equal: runtimes round an Add differently.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from pipeline.inventory import load_inventory
from pipeline.verbs.profile import choose_runtime
from targets.devices.device import Device, open_device
from targets.target import Arrays, RunOptions, Target


@dataclass(frozen=True)
class Row:
    """One file on both machines."""

    model: str
    num_adds: int
    num_samples: int
    is_equal: bool
    agreement: float | None
    """Of the largest output; None where the first output is no vector a sample."""
    first: str
    """Which tensor parts first, and by how much; empty where none does."""

    @property
    def holds(self) -> bool:
        """Equal without an Add; else at least 99.5 % of the answers, and nothing further off than it must be."""
        return self.is_equal or (self.num_adds > 0 and (self.agreement is None or self.agreement >= 0.995))


def main() -> int:
    """Print a row a file; exit code 1 where one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--device", required=True)
    parser.add_argument("--devices", type=Path)
    parser.add_argument("--target", default="onnxruntime")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--samples", type=int, default=64)
    given = parser.parse_args()
    target = choose_runtime(given.target)
    console, rows = Console(width=150), []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        inventory = load_inventory(given.devices)
        device, here = open_device(given.device, work, inventory), open_device("local", work, inventory)
        for model in given.models:
            feeds = feeds_of(onnx.load(str(model)), given.images, given.samples)
            rows.append(compare(model, target, feeds, here, device, work))
    table = Table("file", "Adds", "samples", "outputs", "top-1 agreement", "first tensor that differs", "")
    for row in rows:
        agreement = "-" if row.agreement is None else f"{row.agreement:.2%}"
        equal = "bit-equal" if row.is_equal else "differ"
        table.add_row(
            row.model,
            str(row.num_adds),
            str(row.num_samples),
            equal,
            agreement,
            row.first or "none",
            "holds" if row.holds else "FAILS",
        )
    console.print(table)
    return 0 if all(row.holds for row in rows) else 1


def compare(model: Path, target: Target, feeds: Arrays, here: Device, there: Device, work: Path) -> Row:
    """Run one file on both machines, then once more with its codes as outputs."""
    proto = onnx.load(str(model))
    order = codes_of(proto)
    # Codes of images would be the whole of the traffic: what a model does to its first samples names the tensor too.
    few = {name: array[:4] for name, array in feeds.items()}
    tapped = work / f"tapped-{model.stem}.onnx"
    onnx.save(with_outputs(proto, order), str(tapped))
    expected, found = (each.infer(target, model, RunOptions(), feeds) for each in (here, there))
    expected_codes, found_codes = (each.infer(target, tapped, RunOptions(), few) for each in (here, there))
    steps = {name: _steps(expected_codes[name], found_codes[name]) for name in order}
    first = next((name for name in order if steps[name]), None)
    producers = {output: node for node in proto.graph.node for output in node.output}
    words = ""
    if first is not None:
        source = producers[producers[first].input[0]]
        share = float(np.mean(expected_codes[first] != found_codes[first]))
        words = f"{first} (of {source.op_type} {source.name}): {steps[first]} step, {share:.3%} of its codes"
    top = next(iter(expected))
    has_classes = expected[top].ndim == 2 and expected[top].shape[1] > 1
    return Row(
        model=model.name,
        num_adds=sum(node.op_type == "Add" for node in proto.graph.node),
        num_samples=len(next(iter(feeds.values()))),
        is_equal=all(np.array_equal(expected[name], found[name]) for name in expected),
        agreement=float(np.mean(expected[top].argmax(1) == found[top].argmax(1))) if has_classes else None,
        first=words,
    )


def codes_of(proto: onnx.ModelProto) -> list[str]:
    """Return the tensors that QuantizeLinear gives, a sample a row, in the graph's order."""
    shapes = {
        value.name: [size.dim_value or size.dim_param for size in value.type.tensor_type.shape.dim]
        for value in (*onnx.shape_inference.infer_shapes(proto).graph.value_info, *proto.graph.input)
    }
    batch = shapes[proto.graph.input[0].name][:1]
    found = [output for node in proto.graph.node if node.op_type == "QuantizeLinear" for output in node.output]
    return [name for name in found if shapes.get(name, [None])[:1] == batch]


def with_outputs(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """Return the model with more outputs."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(proto)
    known = {output.name for output in tapped.graph.output}
    inferred = {value.name: value for value in onnx.shape_inference.infer_shapes(tapped).graph.value_info}
    tapped.graph.output.extend(inferred[name] for name in names if name not in known)
    return tapped


def feeds_of(proto: onnx.ModelProto, images: Path | None, samples: int) -> Arrays:
    """Return `samples` inputs: the arrays of a folder, or standard normal ones (bytes where bytes are taken)."""
    feeds: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(0)
    for value in proto.graph.input:
        shape = tuple(size.dim_value or 1 for size in value.type.tensor_type.shape.dim)[1:]
        if images is not None:
            feeds[value.name] = np.load(images / f"{value.name}.npy")[:samples]
        elif value.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
            feeds[value.name] = rng.integers(0, 256, (samples, *shape), np.uint8)
        else:
            feeds[value.name] = rng.standard_normal((samples, *shape)).astype(np.float32)
    return feeds


def _steps(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(np.int64) - other.astype(np.int64)).max(initial=0))


if __name__ == "__main__":
    sys.exit(main())
