"""What NVIDIA's parser and builder mean, as a table: a pattern of their messages, the reason in plain words, a remedy.

Rule: data only, the first match counts; each entry was seen (tensorrt-rtx 1.7). Python 3.8, standard library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Sequence, Tuple

from targets.acceptance import Judge, Objection

LONGEST = 300
"""Letters of a message that are quoted."""


@dataclass(frozen=True)
class Meaning:
    """What a message says."""

    pattern: str
    reason: str
    """`{op}` stands for the operator, `{0}`, `{1}` for the groups of the pattern."""
    remedy: str
    is_fatal: bool = True
    """False where TensorRT for RTX refuses what TensorRT takes."""


PARSER: Tuple[Meaning, ...] = (
    Meaning(
        r"plugin creator version \S+ was not found",
        "TensorRT computes {op} by a plugin that TensorRT for RTX comes without; what follows it was not checked",
        "build it on the device; or leave {op} out of the model, and do its work in the application",
        is_fatal=False,
    ),
    Meaning(
        r"Plugin not found",
        "expected operators of ONNX itself; got {op}, which is neither in ONNX nor known as a plugin",
        "write the layer in operators of ONNX and export again, or do its work in the application, before or after",
    ),
    Meaning(
        r"onnxDtype.elem_type|convertDtype|Unsupported ONNX data type",
        "expected inputs of numbers or truth values; got a type that TensorRT has not, strings for example",
        "do this part of the work in the application, and export the model without it",
    ),
    Meaning(
        r"Failed to import initializer|Failed to open file",
        "expected the weights in the file, or in the files that it names; got none that can be read",
        "put the .data file beside the model, under the name that it was exported with, or export into one file",
    ),
    Meaning(
        r"Non-zero zero point",
        "expected zero points of 0; got others: an asymmetric grid",
        "quantize the float model for this target: edgeproof quantize MODEL.onnx --data DIR --target tensorrt",
    ),
    Meaning(
        r"has type (\w+) but must have type ([^.]+)\.",
        "expected {1} into {op}; got {0}",
        "cast before it, or keep this part in float",
    ),
    Meaning(
        r"Node input was not registered",
        "expected inputs that are there when {op} is reached; got one that a loop or branch makes later",
        "export again without control flow (torch.export unrolls loops of a fixed length)",
    ),
    Meaning(
        r"failed to deserialize|Failed to parse|could not parse|parse ONNX|Invalid (?:protobuf|model)|ModelProto",
        "expected an ONNX file; got something that is none, or a part of one",
        "export the model again, or copy it again",
    ),
)

BUILDER: Tuple[Meaning, ...] = (
    Meaning(
        r"must have at least one output",
        "expected an ONNX file with outputs; got none: an empty or damaged file",
        "export the model again, or copy it again",
    ),
    Meaning(
        r"violates? shape constraints|profile \d+|optimization profile|[Rr]eshape.*(?:volume|cannot)",
        "expected a model that computes at every size of its open inputs; got one with sizes written into it",
        "say the sizes that it is for, --shape NAME=1x3x224x224, or export it with a static shape",
    ),
    Meaning(
        r"Could not find any implementation|no runners|No runners|Error Code 10",
        "TensorRT for RTX has no implementation of some operator of the model (NonMaxSuppression, say), which TensorRT "
        "may have",
        "build it on the device; or leave what comes after the network to the application",
        is_fatal=False,
    ),
    Meaning(
        r"API Usage Error",
        "expected a graph that is consistent; got one whose shapes or types do not fit each other",
        "mend the layer that it names, and export again",
    ),
    Meaning(
        r"",
        "TensorRT for RTX failed to build what its parser had accepted, and TensorRT may not",
        "build it on the device",
        is_fatal=False,
    ),
)


def explain(judge: Judge, messages: Sequence[str], node: str = "", op_type: str = "") -> Objection:
    """Return what messages that belong together mean; the first that is known counts."""
    table = PARSER if judge == "parser" else BUILDER
    for meaning in table:
        for message in messages or ("",):
            match = re.search(meaning.pattern, message)
            if match is None:
                continue
            op = op_type or "an operator"
            return Objection(
                judge,
                meaning.reason.format(*match.groups(), op=op),
                meaning.remedy.format(op=op),
                node=node,
                op_type=op_type,
                is_fatal=meaning.is_fatal,
                said=in_one_line(message),
            )
    return Objection(
        judge,
        f"expected what TensorRT supports of {op_type or 'ONNX'}; got what it does not",
        "change this layer as the message says, or keep it out of the model",
        node=node,
        op_type=op_type,
        said=in_one_line(messages[0]),
    )


def in_one_line(message: str) -> str:
    """Return a message without the places in NVIDIA's sources, and without what having no GPU adds to it."""
    lines = [line for line in message.splitlines() if "cudaError" not in line and not line.startswith("Invalid Node")]
    text = re.sub(r"\s*In \w+ at \S+?:\d+", "", " ".join(lines))
    text = re.sub(r"^\[[\w.:]+\]\s*|Assertion failed: |In node -1 with name:\s+and operator:\s+", "", text).strip()
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
