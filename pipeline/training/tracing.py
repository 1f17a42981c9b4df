"""From a user's network to a graph of its operators; what cannot be traced is named by the line of the user's file."""

import copy
import re
from pathlib import Path

import torch
from torch import fx, nn

from pipeline.errors import RecipeError
from pipeline.training.layout import UNTRACEABLE
from pipeline.training.plain_attention import unpack_attention

TORCH_FOLDER = str(Path(torch.__file__).parent)
FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in ')
AUTOGRAD = str(Path("torch") / "autograd" / "function.py")
"""The file through which an autograd function of the user's own is called (torch 2.13)."""
WAYS_OUT = (
    'deploy with precision = "fp32", or export the network to ONNX by your own means and quantize that: '
    "`edgeproof quantize MODEL.onnx`"
)


class _Tracer(fx.Tracer):
    record_stack_traces = True


def trace(model: nn.Module) -> fx.GraphModule:
    """Return the graph of a copy, in eval mode: folding and rounding must not change the float model.

    Raises:
        RecipeError: its forward depends on the values of tensors, or calls an autograd function of the user's own.
    """
    tracer = _Tracer()
    try:
        network = unpack_attention(copy.deepcopy(model)).eval()
        graph = tracer.trace(network)
    except UNTRACEABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RecipeError(
            f"student.model: expected a forward that can be traced; {_line_in_model(error)}: {reason}. Take what "
            f"depends on the values of tensors out of forward (a plain Python flag, torch.where), or {WAYS_OUT}"
        ) from error
    for node in graph.nodes:
        if AUTOGRAD in (node.stack_trace or ""):
            raise RecipeError(
                f"student.model: expected operators that torch can differentiate; {line_of(node)} calls an autograd "
                f"Function of your own, whose gradient a traced network would not use. Write it in torch's "
                f"operators, or {WAYS_OUT}"
            )
    return fx.GraphModule(network, graph)


def line_of(node: fx.Node) -> str:
    """Return `FILE:LINE` of the user's code that called a node."""
    frames = [found for found in FRAME.finditer(node.stack_trace or "") if not found["file"].startswith(TORCH_FOLDER)]
    return f"{frames[-1]['file']}:{frames[-1]['line']}" if frames else "forward"


def _line_in_model(error: BaseException) -> str:
    """Return file and line of the last frame that is not torch's own."""
    place = "in forward"
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file != __file__ and not file.startswith(TORCH_FOLDER):
            place = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
