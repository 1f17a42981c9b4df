"""One file a model: what is pushed to a device carries its weights within."""

from __future__ import annotations

from pathlib import Path

from targets.errors import ModelRefused


def pack_model(model: Path, packed: Path) -> Path:
    """Return `model` itself, or where its weights lie in other files, `packed` with the weights within.

    Bytes that are not ONNX pass: the runtime says what is wrong with them. Raises ModelRefused where a file is
    missing, or the whole is too large for one file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not model.is_file():
        raise ModelRefused(f"{model}: expected an ONNX file; got no such file")
    try:
        proto = onnx.load(str(model), load_external_data=False)
    except DecodeError:
        return model
    tensors = onnx.external_data_helper._get_all_tensors(proto)
    if not any(onnx.external_data_helper.uses_external_data(tensor) for tensor in tensors):
        return model
    try:
        onnx.external_data_helper.load_external_data_for_model(proto, str(model.parent))
        onnx.save(proto, str(packed))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ModelRefused(f"{model}: expected its external weights beside it, 2 GiB at most; got: {reason}") from error
    return packed
