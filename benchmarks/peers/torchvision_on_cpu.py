"""Makes torchvision 0.28 importable beside a torch without CUDA: its wheel's operators need CUDA's libraries to load.

Without them `import torchvision` fails, since it registers fakes of operators that do not exist. Declared by name, they
let the import through; none is ever called here. Needed as long as the wheel of the package index is built for CUDA.
"""

import importlib.util
from pathlib import Path

import torch

FAKED = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
"""The operators for which torchvision 0.28 registers a fake whether or not they were loaded."""


def declare_missing_operators() -> "torch.library.Library | None":
    """Declare what torchvision needs to be imported; return what keeps it declared, None where nothing was missing."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torchvision: expected it beside torchdistill; got none")
    try:
        torch.ops.load_library(Path(spec.origin).with_name("_C.so"))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for schema in FAKED:
            library.define(schema)
        return library
    return None
