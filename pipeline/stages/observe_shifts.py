"""Stage: completes ranges by what rounding to them adds to the mean of each convolution's output."""

from pathlib import Path

import onnx

from calibration.scheme import Scheme
from pipeline.artifacts import OnnxFile, Ranges
from pipeline.export.shifts import add_shifts
from pipeline.export.tapped import Evaluator
from pipeline.progress import OnProgress, say_nothing
from pipeline.tasks.feeds import Feeds

STAGE_VERSION = 1
TOOLCHAIN = ("numpy", "pillow", "onnx", "onnx-ir")


def observe_shifts(
    out_dir: Path,
    prepared: OnnxFile,
    feeds: Feeds,
    ranges: Ranges,
    scheme: Scheme,
    evaluator: Evaluator,
    *,
    on_progress: OnProgress = say_nothing,
) -> Ranges:
    """Compare the mean input of every convolution with the mean of the same on its grid.

    As `add_shifts` does, which says what the arguments are; `out_dir` stays empty.

    Raises:
        DataError: a sample is broken.
        RecipeError: nothing in the model can be quantized.
        ModelRefused: the evaluator refuses the model.
    """
    proto = onnx.load(str(prepared.path))
    return add_shifts(proto, feeds, ranges, scheme, evaluator, on_progress=on_progress)
