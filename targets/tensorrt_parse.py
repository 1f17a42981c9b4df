"""What asks NVIDIA's parser and builder about one ONNX file: a process of its own, since either may crash or hang.

Rule: never imported by who asks: `python -m targets.tensorrt_parse REQUEST.json ANSWER.jsonl`. Python 3.8, standard
library; tensorrt_rtx, which builds engines without a GPU, is imported when it runs.

Every step is a line of JSON in the answer, written before the step begins: who reads it knows where a process ended.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Mapping, Sequence, Tuple

if TYPE_CHECKING:
    import tensorrt_rtx as trt

Limits = Tuple[List[int], List[int], List[int]]
"""Smallest, usual and largest shape of an input."""

OPEN_BATCH = (1, 4, 8)
OPEN_SIDE = 224
"""Of images whose height and width are open."""
OPEN_SIZE = 1
"""Of what else is open."""
ARCHITECTURES = ("SM86", "SM89", "SM80")
"""GPUs that the engine is built for, the first that this version knows: Ampere is the generation of the Orin boards."""


def main(request_file: Path, answer_file: Path) -> None:
    """Parse and build `model` of the request with the input shapes of its `shapes`."""
    request = json.loads(request_file.read_text("utf-8"))
    with answer_file.open("w", encoding="utf-8") as answer:

        def tell(step: str, **said: object) -> None:
            answer.write(json.dumps({"step": step, **said}) + "\n")
            answer.flush()

        tell("import")
        import tensorrt_rtx as trt

        log = _log(trt)
        tell("parse", version=trt.__version__)
        builder = trt.Builder(log)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, log)
        model = Path(request["model"])
        if not parser.parse(model.read_bytes(), str(model)):
            errors = [_describe(parser.get_error(index)) for index in range(parser.num_errors)]
            tell("refused", errors=errors, messages=log.messages)
            return
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        architecture = next(name for name in ARCHITECTURES if hasattr(trt.ComputeCapability, name))
        config.set_compute_capability(getattr(trt.ComputeCapability, architecture), 0)
        assumed, unknown = _fix_shapes(builder, network, config, request["shapes"])
        tell("build", architecture=architecture, assumed=assumed, unknown=unknown, messages=log.messages)
        engine = builder.build_serialized_network(network, config)
        tell("built", engine_bytes=None if engine is None else engine.nbytes, messages=log.messages)


def _log(trt: "trt") -> "trt.ILogger":
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps errors and warnings."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: List[Tuple[str, str]] = []

        def log(self, severity: "trt.ILogger.Severity", message: str) -> None:
            if severity <= trt.ILogger.WARNING:
                self.messages.append((severity.name.lower(), message))

    return Log()


def _describe(error: "trt.ParserError") -> Dict[str, str]:
    return {"node": error.node_name(), "op_type": error.node_operator(), "message": error.desc()}


def _fix_shapes(
    builder: "trt.Builder",
    network: "trt.INetworkDefinition",
    config: "trt.IBuilderConfig",
    shapes: Mapping[str, Sequence[int]],
) -> Tuple[Dict[str, str], List[str]]:
    """Give inputs with open sizes their limits; return what was assumed in words, and shapes that fit no input."""
    profile, assumed = builder.create_optimization_profile(), {}
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    unknown = sorted(shapes.keys() - {each.name for each in inputs})
    for each in inputs:
        size, given = tuple(each.shape), shapes.get(each.name)
        if given is not None and (len(given) != len(size) or any(s not in (-1, g) for s, g in zip(size, given))):
            unknown.append(each.name)
            given = None
        if -1 not in size:
            continue
        limits = (list(given),) * 3 if given is not None else tuple(_assume(size, which) for which in range(3))
        if given is None:
            low, _, high = limits
            assumed[each.name] = "x".join(str(a) if a == b else "{}..{}".format(a, b) for a, b in zip(low, high))
        if each.is_shape_tensor:
            profile.set_shape_input(each.name, *([OPEN_SIZE] * size[0] for _ in range(3)))
        else:
            profile.set_shape(each.name, *limits)
    config.add_optimization_profile(profile)
    return assumed, unknown


def _assume(size: Sequence[int], which: int) -> List[int]:
    sides = (2, 3) if len(size) == 4 and size[1] in (1, 3, 4) else (1, 2) if len(size) == 4 else ()
    opened = {0: OPEN_BATCH[which], **dict.fromkeys(sides, OPEN_SIDE)}
    return [opened.get(axis, OPEN_SIZE) if value == -1 else value for axis, value in enumerate(size)]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
