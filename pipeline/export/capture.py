"""From a torch module to an ONNX graph, by torch's own exporter, with nodes that are called by their modules."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor, nn

from pipeline.errors import RecipeError
from pipeline.export.names import name_nodes
from pipeline.export.tidy import restore_global_average_pool

INPUT, OUTPUT = "image", "logits"
LOWEST_EXPORTED = 18
"""The exporter's own lowest opset (torch 2.13)."""

PACKAGES = str(Path(torch.__file__).parents[1])
"""Where torch and what it calls are installed: a line there is nobody's forward."""


def capture(network: nn.Module, example: Tensor, opset: int, *, is_dynamic: bool) -> ir.Model:
    """Return the graph of `network` with input `image` and output `logits`, and stable names.

    Args:
        network: in eval mode.
        example: an input; at least two samples where the batch is to be dynamic.
        opset: 18 or higher.
        is_dynamic: whether the batch is open.

    Raises:
        RecipeError: torch.export cannot capture it; names the line, and the ways out.
    """
    shapes = ({0: torch.export.Dim("batch")},) if is_dynamic else None
    try:
        with _quiet(), _shapes_of_fake_quantization():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                verbose=False,
                external_data=False,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=shapes,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise RecipeError(
            f"student.model: expected a forward that torch.export can capture; {_place_of(error)}: {reason}. Take what "
            "depends on the values of tensors out of forward (a plain Python flag, torch.where); or write the model to "
            "ONNX by other means, and run: edgeproof quantize MODEL.onnx"
        ) from error
    assert program is not None
    restore_global_average_pool(program.model.graph)
    name_nodes(program.model.graph)
    return program.model


def _place_of(error: BaseException) -> str:
    """Return file and line of the innermost call that is the model's own, in what led to an error."""
    place, cause = "in forward", error.__cause__
    while cause is not None:
        trace = cause.__traceback__
        while trace is not None:
            file = trace.tb_frame.f_code.co_filename
            if file != __file__ and not file.startswith((PACKAGES, "<")):
                place = f"{file}:{trace.tb_lineno}"
            trace = trace.tb_next
        cause = cause.__cause__
    return place


@contextlib.contextmanager
def _shapes_of_fake_quantization() -> Iterator[None]:
    """Tell torch.export the shapes that fake quantization gives: torch 2.13 knows them for static shapes only."""

    def give_shapes(x: Tensor, *grid: object) -> tuple[Tensor, Tensor]:
        return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)

    with torch.library._scoped_library("aten", "IMPL", "Meta") as library:
        library.impl("_fake_quantize_per_tensor_affine_cachemask_tensor_qparams", give_shapes)
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes on packages that are not needed (torch 2.13)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
