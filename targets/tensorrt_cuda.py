"""CUDA's runtime, as far as an inference needs it: memory, copies and a stream.

Rule: six functions by their own names, through cuda-python or ctypes, whichever the device has. Devices carry this
file: Python 3.8, standard library only; cuda-python is imported when it is asked for.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from importlib import import_module
from types import ModuleType
from typing import Dict, Optional, Protocol, Sequence, Tuple

from targets.errors import DeviceError

TO_DEVICE, TO_HOST = 1, 2
"""Kinds of cudaMemcpyAsync."""
MODULES = ("cuda.bindings.runtime", "cuda.cudart")
"""cuda-python's runtime: since 12.8, and before."""
LIBRARIES = (
    *("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so"),
    *("/usr/local/cuda/lib64/libcudart.so", "/usr/local/cuda/targets/aarch64-linux/lib/libcudart.so"),
)

REMEDIES = {
    2: "free memory on the device, or try a smaller model or batch",
    35: "install a driver that is at least as new as CUDA's runtime",
}
"""What to do about an error, by CUDA's number."""

_address = ctypes.c_void_p
_result = ctypes.POINTER(ctypes.c_void_p)
SIGNATURES: Dict[str, Tuple[object, ...]] = {
    "cudaMalloc": (_result, ctypes.c_size_t),
    "cudaFree": (_address,),
    "cudaStreamCreate": (_result,),
    "cudaStreamDestroy": (_address,),
    "cudaStreamSynchronize": (_address,),
    "cudaMemcpyAsync": (_address, _address, ctypes.c_size_t, ctypes.c_int, _address),
}
"""Arguments in C; a leading pointer to a result is not given, but returned."""


class Cuda(Protocol):
    """The runtime's functions, with addresses and streams as integers."""

    def __call__(self, name: str, *arguments: int) -> int:
        """Call a function of SIGNATURES; return its result, or 0. Raises DeviceError with CUDA's own words."""
        ...


class CudaPython:
    """Through cuda-python."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __call__(self, name: str, *arguments: int) -> int:
        """See Cuda."""
        given: Sequence[object] = arguments
        if name == "cudaMemcpyAsync":
            to, source, num_bytes, kind, stream = arguments
            given = (to, source, num_bytes, self._module.cudaMemcpyKind(kind), stream)
        code, *results = getattr(self._module, name)(*given)
        if int(code):
            raise _failed(name, int(code), self._module.cudaGetErrorString(code)[1])
        return int(results[0]) if results else 0


class Cudart:
    """Through the library itself."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions = {name: getattr(library, name) for name in SIGNATURES}
        for name, arguments in SIGNATURES.items():
            self._functions[name].argtypes = arguments
        self._explain = library.cudaGetErrorString
        self._explain.restype = ctypes.c_char_p

    def __call__(self, name: str, *arguments: int) -> int:
        """See Cuda."""
        result = ctypes.c_void_p()
        gives = SIGNATURES[name][0] is _result
        code = self._functions[name](*((ctypes.byref(result), *arguments) if gives else arguments))
        if code:
            raise _failed(name, code, self._explain(code))
        return result.value or 0


def open_cuda(modules: Sequence[str] = MODULES, libraries: Optional[Sequence[str]] = None) -> Cuda:
    """Return the runtime that the device has.

    Args:
        modules: of cuda-python, the first that can be imported.
        libraries: libcudart, the first that can be loaded; where the system keeps it, and LIBRARIES.

    Raises:
        DeviceError: it has none of them.
    """
    for name in modules:
        try:
            return CudaPython(import_module(name))
        except ImportError:  # not installed, or for another CUDA
            continue
    found = ctypes.util.find_library("cudart")
    for library in libraries if libraries is not None else (*([found] if found else []), *LIBRARIES):
        try:
            return Cudart(ctypes.CDLL(library))
        except (OSError, AttributeError):  # not there, or something else of that name
            continue
    raise DeviceError(
        "tensorrt: expected CUDA's runtime, for memory on the GPU; got neither the package cuda-python nor libcudart; "
        "install one: sudo apt-get install cuda-cudart-12-6 (the CUDA of your JetPack), or pip install cuda-python"
    )


def _failed(name: str, code: int, words: bytes) -> DeviceError:
    return DeviceError(
        f"tensorrt: expected {name} to succeed; got CUDA error {code}: {words.decode('utf-8', 'replace')}; "
        f"{REMEDIES.get(code, 'restart the device, and run it again')}"
    )
