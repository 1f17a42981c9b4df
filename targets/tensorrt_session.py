"""A TensorRT engine, ready to infer: tensors by name, one context and one stream a binding.

Rule: only names that 8.5 to 11 share. Devices carry this file: Python 3.8, standard library and NumPy only; TensorRT
and CUDA are handed in. Nothing here was executed with TensorRT itself: contract tests hold it.
"""

from __future__ import annotations

import weakref
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from targets.errors import DeviceError, ModelRefused
from targets.runner.feeds import align, check_feeds, make_feeds
from targets.target import Arrays, TensorSpec
from targets.tensorrt_build import make_log
from targets.tensorrt_cuda import TO_DEVICE, TO_HOST, Cuda
from targets.tensorrt_words import in_one_line

if TYPE_CHECKING:
    import tensorrt as trt

ELEMENT_TYPES = {
    **{"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "FP8": "float8", "BOOL": "bool"},
    **{"INT8": "int8", "UINT8": "uint8", "INT32": "int32", "INT64": "int64"},
}
"""TensorRT's names, as NumPy's; its own `nptype` fails with NumPy 1.24 in 8.5."""


class TensorRtSession:
    """An engine that was deserialized."""

    def __init__(self, runtime: ModuleType, content: bytes, cuda: Cuda) -> None:
        """Raise ModelRefused where TensorRT does not take the engine."""
        self._trt = runtime
        self._cuda = cuda
        self._log = make_log(runtime)
        self._runtime = runtime.Runtime(self._log)  # an engine does not keep its runtime alive
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise self._refused("deserialize the engine")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        is_input = runtime.TensorIOMode.INPUT
        self.inputs = tuple(self._read_spec(each) for each in names if self._engine.get_tensor_mode(each) == is_input)
        self.outputs = tuple(self._read_spec(each) for each in names if self._engine.get_tensor_mode(each) != is_input)

    def bind(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], Arrays]:
        """Return how to infer from host to host: copies and the engine on one stream, one wait."""
        return self._bind(feeds, None)

    def time_layers(self, runs: int) -> Dict[str, float]:
        """Return the mean milliseconds of each layer by name, by the engine's own profiler, after a cold run."""
        times = self._make_profiler()
        infer = self._bind(make_feeds(self.inputs, {}, seed=0), times)
        times.sums_ms.clear()
        for _ in range(runs):
            infer()
        return {name: total_ms / runs for name, total_ms in times.sums_ms.items()}

    def describe_layers(self) -> str:
        """Return the engine inspector's JSON."""
        text: str = self._engine.create_engine_inspector().get_engine_information(self._trt.LayerInformationFormat.JSON)
        return text

    def _bind(self, feeds: Mapping[str, np.ndarray], profiler: "Optional[trt.IProfiler]") -> Callable[[], Arrays]:
        check_feeds(self.inputs, feeds)
        kept = dict(feeds)
        context = self._engine.create_execution_context()
        if context is None:
            raise DeviceError(
                f"tensorrt: expected memory for the engine's activations; got none: {self._reason()}; free memory on "
                "the device"
            )
        if profiler is not None:
            context.profiler = profiler
        outputs = self._size_outputs(context, kept)
        cuda = self._cuda
        stream = cuda("cudaStreamCreate")
        arrays = {**kept, **outputs}
        buffers = {name: cuda("cudaMalloc", max(1, array.nbytes)) for name, array in arrays.items()}
        for name, address in buffers.items():
            if not context.set_tensor_address(name, address):
                raise self._refused(f"take the address of {name!r}")
        steps: List[Callable[[], object]] = [
            *(self._copy(array, buffers[name], TO_DEVICE, stream) for name, array in kept.items()),
            partial(self._execute, context, stream),
            *(self._copy(array, buffers[name], TO_HOST, stream) for name, array in outputs.items()),
            partial(cuda, "cudaStreamSynchronize", stream),
        ]

        def infer(_feeds: Arrays = kept) -> Arrays:  # the default keeps the memory alive that copies read
            for step in steps:
                step()
            return outputs

        finalizer = weakref.finalize(infer, _release, cuda, tuple(buffers.values()), stream)
        finalizer.atexit = False  # then the process's end frees everything, and CUDA is gone already
        infer()
        return infer

    def _size_outputs(self, context: "trt.IExecutionContext", feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Tell the context the shapes of the feeds; return arrays for the outputs."""
        for name, array in feeds.items():
            if not context.set_input_shape(name, tuple(array.shape)):
                raise self._refused(f"compute a feed {name!r} of shape {tuple(array.shape)}")
        outputs = {}
        for spec in self.outputs:
            shape = tuple(context.get_tensor_shape(spec.name))
            if any(size < 0 for size in shape):
                raise ModelRefused(
                    f"output {spec.name!r}: expected a shape that the inputs' shapes give; got one that their "
                    f"values give, {shape}; leave what makes it (NonMaxSuppression, NonZero) to the application"
                )
            outputs[spec.name] = align(np.zeros(shape, spec.dtype))
        return outputs

    def _copy(self, array: np.ndarray, address: int, kind: int, stream: int) -> Callable[[], object]:
        ends = (address, array.ctypes.data) if kind == TO_DEVICE else (array.ctypes.data, address)
        return partial(self._cuda, "cudaMemcpyAsync", *ends, array.nbytes, kind, stream)

    def _execute(self, context: "trt.IExecutionContext", stream: int) -> None:
        if not context.execute_async_v3(stream):
            raise self._refused("execute the engine")

    def _read_spec(self, name: str) -> TensorSpec:
        engine = self._engine
        if engine.is_shape_inference_io(name):
            raise ModelRefused(
                f"tensor {name!r}: expected values to compute with; got sizes of other tensors; export the model with "
                "static shapes"
            )
        element = engine.get_tensor_dtype(name).name
        sizes = tuple(None if size < 0 else int(size) for size in tuple(engine.get_tensor_shape(name)))
        return TensorSpec(name, ELEMENT_TYPES.get(element, element.lower()), sizes)

    def _make_profiler(self) -> "trt.IProfiler":
        runtime = self._trt

        class Times(runtime.IProfiler):  # type: ignore[misc, name-defined]  # as above
            """Sums what the engine reports after each inference."""

            def __init__(self) -> None:
                runtime.IProfiler.__init__(self)
                self.sums_ms: Dict[str, float] = {}

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                """Add one layer's time."""
                self.sums_ms[layer_name] = self.sums_ms.get(layer_name, 0.0) + float(ms)

        return Times()

    def _refused(self, doing: str) -> ModelRefused:
        version = self._trt.__version__
        return ModelRefused(f"tensorrt {version} refuses the model: it does not {doing}: {self._reason()}")

    def _reason(self) -> str:
        messages: Sequence[str] = self._log.messages
        return in_one_line(messages[-1]) if messages else "it gives no reason"


def _release(cuda: Cuda, buffers: Tuple[int, ...], stream: int) -> None:
    for address in buffers:
        cuda("cudaFree", address)
    cuda("cudaStreamDestroy", stream)
