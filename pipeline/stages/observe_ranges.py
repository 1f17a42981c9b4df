"""Stage: calibration of any ONNX model: what range each of its tensors takes on samples of the user's."""

from pathlib import Path

import onnx
import onnx_ir as ir

from calibration.ranges import AnyRange
from calibration.scheme import Scheme
from pipeline.artifacts import OnnxFile, Ranges
from pipeline.export.observe import grid_of_scheme, observe_by
from pipeline.export.place_onnx import observed_tensors
from pipeline.export.tapped import Evaluator
from pipeline.progress import OnProgress, say_nothing
from pipeline.tasks.feeds import Feeds

STAGE_VERSION = 2
TOOLCHAIN = ("numpy", "pillow", "onnx", "onnx-ir")


def observe_ranges(
    out_dir: Path,
    prepared: OnnxFile,
    feeds: Feeds,
    method: AnyRange,
    scheme: Scheme,
    evaluator: Evaluator,
    *,
    on_progress: OnProgress = say_nothing,
) -> Ranges:
    """Run the float model on every sample, on the host, and observe each tensor that a grid may be needed for.

    Args:
        out_dir: stays empty.
        prepared: from `prepare_onnx`.
        feeds: samples to calibrate on.
        method: how a range comes of values.
        scheme: the grid that ranges are for.
        evaluator: evaluates ONNX as written.
        on_progress: hears of each sample.

    Raises:
        DataError: a tensor is not finite, or none went through it.
        RecipeError: nothing in the model can be quantized.
        ModelRefused: the evaluator refuses the model.
    """
    proto = onnx.load(str(prepared.path))
    codes, asymmetric = grid_of_scheme(scheme)
    names = observed_tensors(ir.from_proto(proto).graph)
    observers = {name: (method.start(codes, asymmetric=asymmetric),) for name in names}
    return observe_by(proto, feeds, observers, evaluator, on_progress=on_progress).ranges()
