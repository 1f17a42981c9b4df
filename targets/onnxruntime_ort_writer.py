"""The process that writes a .ort file: ONNX Runtime's own converter, and then one order for what it leaves in any.

    python -m targets.onnxruntime_ort_writer FOLDER/model.onnx [arm | amd64]

Rule: run by targets/onnxruntime_ort.py alone. Devices carry this file: Python 3.8, standard library at module level.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Sequence

if TYPE_CHECKING:
    import flatbuffers
    from ort_flatbuffers_py.fbs.KernelTypeStrArgsEntry import KernelTypeStrArgsEntry
    from ort_flatbuffers_py.fbs.OpIdKernelTypeStrArgsEntry import OpIdKernelTypeStrArgsEntry

ALIGNMENT = 8
"""Of the widest scalar in the format; everything lies at multiples of its own size, counted from the end."""


def write_ort(source: Path, platform: Optional[str]) -> None:
    """Write SOURCE.ort, and SOURCE.required_operators_and_types.config, beside `source`."""
    from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

    convert_onnx_models_to_ort(
        source, optimization_styles=[OptimizationStyle.Fixed], target_platform=platform, enable_type_reduction=True
    )
    written = source.with_suffix(".ort")
    written.write_bytes(sort_kernel_types(written.read_bytes()))


def sort_kernel_types(content: bytes) -> bytes:
    """Return a .ort file with its table of kernel types in sorted order, and nothing else changed.

    ONNX Runtime (1.31) writes that table last, in front of the model, and in the order of a hash map whose seed is an
    address: the same model would give other bytes in every process.
    """
    import flatbuffers
    from ort_flatbuffers_py.fbs.InferenceSession import InferenceSession  # onnxruntime.tools puts it on the path

    session = InferenceSession.GetRootAs(content)
    model = session.Model()._tab.Pos
    (to_vtable,) = struct.unpack_from("<i", content, model)
    kept = content[min(model, model - to_vtable) :]
    builder = flatbuffers.Builder(0)
    builder.Bytes, builder.minalign = bytearray(kept), ALIGNMENT
    resolver = session.KernelTypeStrResolver()
    entries = [resolver.OpKernelTypeStrArgs(i) for i in range(resolver.OpKernelTypeStrArgsLength())]
    operators = _vector(builder, [_write_operator(builder, each) for each in sorted(entries, key=lambda e: e.OpId())])
    version = builder.CreateString(session.OrtVersion())
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, operators, 0)
    table = builder.EndObject()
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(0, version, 0)
    builder.PrependUOffsetTRelativeSlot(1, len(content) - model, 0)
    builder.PrependUOffsetTRelativeSlot(3, table, 0)
    builder.Finish(builder.EndObject(), file_identifier=content[4:8])
    return bytes(builder.Output())


def _write_operator(builder: flatbuffers.Builder, entry: OpIdKernelTypeStrArgsEntry) -> int:
    kinds = [entry.KernelTypeStrArgs(i) for i in range(entry.KernelTypeStrArgsLength())]
    name = builder.CreateString(entry.OpId())
    written = [_write_kind(builder, each) for each in sorted(kinds, key=lambda k: k.KernelTypeStr())]
    return _pair(builder, name, _vector(builder, written))


def _write_kind(builder: flatbuffers.Builder, entry: KernelTypeStrArgsEntry) -> int:
    name = builder.CreateString(entry.KernelTypeStr())
    arguments = []
    for argument in (entry.Args(i) for i in range(entry.ArgsLength())):
        builder.StartObject(2)
        builder.PrependInt8Slot(0, argument.ArgType(), 0)
        builder.PrependUint32Slot(1, argument.Index(), 0)
        arguments.append(builder.EndObject())
    return _pair(builder, name, _vector(builder, arguments))


def _pair(builder: flatbuffers.Builder, name: int, items: int) -> int:
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    builder.PrependUOffsetTRelativeSlot(1, items, 0)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, offsets: List[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def main(arguments: Sequence[str]) -> None:
    """Write what the command line names."""
    source, platform = (*arguments, None)[:2]
    write_ort(Path(str(source)), platform)


if __name__ == "__main__":
    main(sys.argv[1:])
