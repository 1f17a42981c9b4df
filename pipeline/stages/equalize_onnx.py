"""Stage: equalises the channels of a float ONNX model, so that one grid a tensor serves them all."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from pipeline.artifacts import OnnxFile
from pipeline.export.equalize import equalize, find_links
from pipeline.export.onnx_file import write_onnx
from pipeline.export.tapped import Evaluator, run_tapped
from pipeline.progress import OnProgress, say_nothing
from pipeline.tasks.feeds import Feeds

STAGE_VERSION = 1
TOOLCHAIN = ("numpy", "pillow", "onnx", "onnx-ir")

MOST_SAMPLES = 16
"""How channels compare shows in a few samples."""


def equalize_onnx(
    out_dir: Path, prepared: OnnxFile, feeds: Feeds, evaluator: Evaluator, *, on_progress: OnProgress = say_nothing
) -> OnnxFile:
    """Write `model.onnx`, which computes the same, with channels between convolutions of like sizes.

    Args:
        out_dir: gets the file.
        prepared: from `prepare_onnx`.
        feeds: samples to observe channels on; the first few are enough.
        evaluator: evaluates ONNX as written.
        on_progress: hears of each sample.

    Raises:
        DataError: a sample is broken.
        ModelRefused: the evaluator refuses the model.
    """
    proto = onnx.load(str(prepared.path))
    model = ir.from_proto(proto)
    links = find_links(model.graph)
    names = tuple(dict.fromkeys(name for link in links for name in link.tensors))
    sizes: dict[str, np.ndarray] = {}
    few = feeds.take(range(min(MOST_SAMPLES, len(feeds)) if links else 0))
    for done, tensors in enumerate(run_tapped(evaluator, few)(proto, names), start=1):
        for name in names:
            seen = np.abs(np.moveaxis(tensors[name], 1, 0).reshape(tensors[name].shape[1], -1)).max(axis=1, initial=0)
            sizes[name] = np.maximum(sizes.get(name, seen), seen)
        on_progress(done, len(few))
    equalize(links if sizes else (), {name: np.nan_to_num(size, posinf=0.0) for name, size in sizes.items()})
    return write_onnx(ir.to_proto(model), out_dir / "model.onnx", precision="fp32")
