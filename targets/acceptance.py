"""Whether a runtime accepts a model, asked before any device is at hand, and why not, in the user's words.

Rule: devices carry this file: Python 3.8, standard library only. That a model is accepted says nothing of its speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Mapping, Optional, Protocol, Sequence, Tuple, runtime_checkable

Verdict = Literal["accepted", "warned", "refused", "undecided"]
"""`warned`: the runtime takes it, though the tool that stood in for it did not; `undecided`: the tool died."""
Judge = Literal["grid", "parser", "builder", "process"]
"""Who objects: the rules of the runtime's integer grid, its parser, its builder, or the process that asked them."""


@dataclass(frozen=True)
class Objection:
    """What stands against a model, or what its user should know."""

    judge: Judge
    reason: str
    """What was expected and what came."""
    remedy: str
    """What to do; empty where nobody knows."""
    node: str = ""
    """Name of the node; empty where it is about the whole model."""
    op_type: str = ""
    num_nodes: int = 1
    """How many nodes it is said of; `node` is the first of them."""
    is_fatal: bool = True
    """False where the runtime itself takes the model all the same."""
    said: str = ""
    """The tool's own words, one line; empty where the reason is ours."""

    def place(self) -> str:
        """Return where it is, to stand before the reason; empty where it is about the whole model."""
        if not self.op_type:
            return ""
        others = f" and {self.num_nodes - 1} more" if self.num_nodes > 1 else ""
        return f"node {self.node!r} ({self.op_type}){others}: "

    def describe(self) -> str:
        """Return where, why and what to do, in one line."""
        return f"{self.place()}{self.reason}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Acceptance:
    """The answer for one model."""

    verdict: Verdict
    checked_with: str
    """The tool that was asked, with its version, and the processor that it built for."""
    objections: Tuple[Objection, ...]
    seconds: float
    size_bytes: Optional[int] = None
    """Of what was built; None where nothing was."""
    assumed: Tuple[str, ...] = ()
    """Sizes of open inputs that nobody told, as `name=1..8x3x224x224`."""
    note: str = ""
    """What the answer does not say."""


@runtime_checkable
class ChecksWithoutDevice(Protocol):
    """A target whose models can be checked where its device is not."""

    def find_checker(self) -> str:
        """Return name and version of the tool that is asked: answers are as good as it is.

        Raises:
            DeviceError: it is not installed; says how to install it.
        """
        ...

    def check_model(self, model: Path, shapes: Mapping[str, Sequence[int]], *, timeout_s: float) -> Acceptance:
        """Return whether the runtime takes an ONNX file.

        Args:
            model: the file.
            shapes: of inputs with open sizes.
            timeout_s: after so long the check is given up, which is an answer too.

        Raises:
            DeviceError: as `find_checker`.
            ModelRefused: a shape is given for no input.
        """
        ...
