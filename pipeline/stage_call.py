"""A stage applied to its inputs: what its key covers, and why a result is stale.

Rule: whatever can change the result is in the key, and nothing else.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from types import FunctionType
from typing import get_type_hints

from pydantic import JsonValue

from pipeline.canonical import CONTENT_NAMES, canonical, canonical_json, canonical_sha256

_CALLBACK_PREFIX = "on_"
_ABSENT = "absent"
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class StageCall:
    """One application of a stage, by content."""

    stage: str
    version: int
    toolchain: dict[str, str]
    """Installed version by distribution name, of those that can change the result."""
    inputs: dict[str, JsonValue]
    """Canonical form by parameter name, in the stage's order."""

    @cached_property
    def key(self) -> str:
        """Full-length sha256 over all of it."""
        return canonical_sha256(
            {"stage": self.stage, "version": self.version, "toolchain": {**self.toolchain}, "inputs": self.inputs}
        )


def describe_call(
    stage: FunctionType, args: Sequence[object], kwargs: dict[str, object], version_of: Callable[[str], str]
) -> StageCall:
    """Return what `stage(out_dir, *args, **kwargs)` depends on; defaults count like given values.

    Keyword-only parameters whose name starts with `on_` are callbacks and do not count.

    Raises TypeError where the stage's module lacks STAGE_VERSION or TOOLCHAIN, or an input has no canonical form.
    """
    signature = inspect.signature(stage)
    bound = signature.bind(None, *args, **kwargs)  # None stands for out_dir
    bound.apply_defaults()
    out_dir, *counted = signature.parameters.values()
    del out_dir
    inputs = {p.name: canonical(bound.arguments[p.name], p.name) for p in counted if not _is_callback(p)}
    stage_version, distributions = _declared_by_module_of(stage)
    return StageCall(stage.__name__, stage_version, {name: version_of(name) for name in distributions}, inputs)


def returned_type(stage: FunctionType) -> type:
    """Return the artifact's class, which the stage's annotation names; raises TypeError where it is no dataclass."""
    returned = get_type_hints(stage).get("return")
    if not isinstance(returned, type) or not is_dataclass(returned):
        raise TypeError(f"{stage.__module__}.{stage.__name__}: expected a dataclass as return type; got {returned!r}")
    return returned


def installed_version(distribution: str) -> str:
    """Return the version of an installed distribution, or "not installed"."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def changes(before: StageCall, after: StageCall) -> tuple[str, ...]:
    """Say in words what differs between two calls of one stage; empty exactly where their keys are equal."""
    found = list(_differences({**before.inputs}, {**after.inputs}, ""))
    if before.version != after.version:
        found.append(f"stage version {before.version} -> {after.version}")
    for name in {**after.toolchain, **before.toolchain}:
        old, new = before.toolchain.get(name, _ABSENT), after.toolchain.get(name, _ABSENT)
        if old != new:
            found.append(f"toolchain {name} {old} -> {new}")
    return tuple(found)


def _is_callback(parameter: inspect.Parameter) -> bool:
    return parameter.kind is parameter.KEYWORD_ONLY and parameter.name.startswith(_CALLBACK_PREFIX)


def _declared_by_module_of(stage: FunctionType) -> tuple[int, tuple[str, ...]]:
    stage_version, toolchain = (stage.__globals__.get(name) for name in ("STAGE_VERSION", "TOOLCHAIN"))
    if not isinstance(stage_version, int) or not isinstance(toolchain, tuple):
        raise TypeError(
            f"{stage.__module__}: expected STAGE_VERSION: int and TOOLCHAIN: tuple[str, ...] beside the stage "
            f"{stage.__name__}; got {stage_version!r} and {toolchain!r}"
        )
    return stage_version, toolchain


def _differences(before: JsonValue, after: JsonValue, where: str) -> Iterator[str]:
    if canonical_json(before) == canonical_json(after):  # not ==, for which 1, 1.0 and True are one
        return
    if isinstance(before, dict) and isinstance(after, dict) and before.get("$class") == after.get("$class"):
        contents = [name for name in CONTENT_NAMES if name in before and name in after]
        if contents:
            yield f"{where}: other content ({_short(before[contents[0]])} -> {_short(after[contents[0]])})"
            return
        for name in {**after, **before}:
            path = f"{where}.{name}" if where else name
            if name in before and name in after:
                yield from _differences(before[name], after[name], path)
            else:
                yield f"{path}: {_shown_member(before, name)} -> {_shown_member(after, name)}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differences(old, new, f"{where}[{index}]")
    else:
        yield f"{where}: {_shown(before)} -> {_shown(after)}"


def _shown_member(form: dict[str, JsonValue], name: str) -> str:
    return _shown(form[name]) if name in form else _ABSENT


def _shown(form: JsonValue) -> str:
    if isinstance(form, dict) and "$class" in form:
        return str(form["$class"])
    text = canonical_json(form).decode()
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def _short(digest: JsonValue) -> str:
    return str(digest)[:8]
