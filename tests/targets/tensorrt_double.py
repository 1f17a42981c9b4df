"""A double of TensorRT: the names of a real version's bindings and no others, over onnx's reference evaluator.

Every object refuses a name that the version's class lacks, as the bindings would (tensorrt_names.json was read from
them; see read_tensorrt_names.py). What the double does where TensorRT would differ by version is what NVIDIA documents.
Memory on its GPU is memory of this process.
"""

import ctypes
import enum
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper
from onnx.reference import ReferenceEvaluator

NAMES: dict[str, dict[str, frozenset[str]]] = {
    version: {name: frozenset(words.split()) for name, words in classes.items()}
    for version, classes in json.loads(Path(__file__).with_name("tensorrt_names.json").read_text("utf-8")).items()
}
VERSIONS = tuple(NAMES)
ENUMS = (
    *("BuilderFlag", "NetworkDefinitionCreationFlag", "MemoryPoolType", "ProfilingVerbosity", "DeviceType"),
    *("LayerInformationFormat", "DataType", "TensorIOMode"),
)
ELEMENTS = {"float32": "FLOAT", "float16": "HALF", "int64": "INT64", "int32": "INT32", "int8": "INT8", "bool": "BOOL"}
WORDS = {"FLOAT": "Float", "HALF": "Half", "INT8": "Int8", "INT32": "Int32", "INT64": "Int64", "BOOL": "Bool"}


class Named:
    """An object of a class of the bindings: what the class lacks cannot be read or set."""

    def __init__(self, version: str, kind: str, inner: object) -> None:
        object.__setattr__(self, "_at", (NAMES[version][kind], f"tensorrt {version}: {kind}", inner))

    def __getattr__(self, name: str) -> object:
        names, kind, inner = object.__getattribute__(self, "_at")
        if name not in names:
            raise AttributeError(f"{kind} has no {name}")
        return getattr(inner, name)

    def __setattr__(self, name: str, value: object) -> None:
        names, kind, inner = object.__getattribute__(self, "_at")
        if name not in names:
            raise AttributeError(f"{kind} has no {name}")
        setattr(inner, name, value)


def inner_of(named: object) -> object:
    return object.__getattribute__(named, "_at")[2]


class Config:
    """Settings of a builder."""

    def __init__(self, double: "Double") -> None:
        self.flags_set = {"TF32"}  # the builder's default
        self.profiles: list[object] = []
        self.workspace: int | None = None
        self.profiling_verbosity = self.default_device_type = self.DLA_core = None
        self._double, self._cache = double, b""

    def set_flag(self, flag: enum.IntEnum) -> None:
        self.flags_set.add(flag.name)

    def clear_flag(self, flag: enum.IntEnum) -> None:
        self.flags_set.discard(flag.name)

    def set_memory_pool_limit(self, pool: enum.IntEnum, pool_size: int) -> None:
        assert pool.name == "WORKSPACE"
        self.workspace = pool_size

    def add_optimization_profile(self, profile: object) -> int:
        self.profiles.append(inner_of(profile))
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> object:
        return self._double.wrap("ITimingCache", SimpleNamespace(serialize=lambda: serialized_timing_cache))

    def set_timing_cache(self, cache: object, ignore_mismatch: bool) -> bool:
        content = inner_of(cache).serialize()  # type: ignore[attr-defined]
        if content and not content.startswith(self._double.stamp) and not ignore_mismatch:
            return False
        self._cache = content or self._double.stamp
        return True

    def get_timing_cache(self) -> object:
        return self.create_timing_cache(self._cache + b" timed")


class Double:
    """One version; `module` stands for `import tensorrt`."""

    def __init__(self, version: str) -> None:
        self.version, self.names = version, NAMES[version]
        self.major = int(version.split(".")[0])
        self.stamp = f"timings of {version}".encode()
        self.configs: list[Config] = []
        """Those that were built with, in order."""
        self.module = self._make_module()

    def wrap(self, kind: str, inner: object) -> Named:
        return Named(self.version, kind, inner)

    def _make_module(self) -> ModuleType:
        module = ModuleType("tensorrt")
        for name in ENUMS:
            members = sorted(word for word in self.names[name] if word not in ("name", "value"))
            setattr(module, name, enum.IntEnum(name, {word: index for index, word in enumerate(members)}))
        severities = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
        classes = {
            "ILogger": type("ILogger", (), {word: index for index, word in enumerate(severities)}),
            "IProfiler": type("IProfiler", (), {}),
            "Builder": self._make_builder,
            "OnnxParser": self._make_parser,
            "Runtime": self._make_runtime,
        }
        for name, made in classes.items():
            setattr(module, name, made)
        module.__version__ = f"{self.version}.30"  # type: ignore[attr-defined]
        return module

    def _make_builder(self, logger: object) -> Named:
        def create_network(flags: int = 0) -> Named:
            creation = self.module.NetworkDefinitionCreationFlag
            is_set = {name: bool(flags & 1 << int(flag)) for name, flag in creation.__members__.items()}
            assert self.major > 8 or is_set["EXPLICIT_BATCH"], "TensorRT 8 parses ONNX into explicit batches alone"
            network = SimpleNamespace(is_strong=self.major > 10 or is_set.get("STRONGLY_TYPED", False), num_inputs=0)
            return self.wrap("INetworkDefinition", network)

        return self.wrap(
            "Builder",
            SimpleNamespace(
                create_network=create_network,
                create_builder_config=lambda: self.wrap("IBuilderConfig", Config(self)),
                create_optimization_profile=self._make_profile,
                build_serialized_network=lambda network, config: self._build(
                    logger, inner_of(network), inner_of(config)
                ),
                platform_has_fast_fp16=True,
                num_DLA_cores=2,
            ),
        )

    def _make_profile(self) -> Named:
        shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

        def set_shape(name: str, low: tuple[int, ...], best: tuple[int, ...], high: tuple[int, ...]) -> None:
            shapes[name] = (low, best, high)

        return self.wrap("IOptimizationProfile", SimpleNamespace(set_shape=set_shape, shapes=shapes))

    def _make_parser(self, network: object, logger: object) -> Named:
        inner, errors = inner_of(network), []

        def parse(model: bytes, path: str | None = None) -> bool:
            try:
                proto = onnx.load_from_string(model)
            except DecodeError:
                proto = onnx.ModelProto()
            if not proto.graph.output:
                errors.append(("", "", "Failed to parse the ONNX model."))
                return False
            known = {schema.name for schema in onnx.defs.get_all_schemas()}
            errors.extend(
                (each.name, each.op_type, f"Plugin not found, are the plugin name and version correct: {each.op_type}")
                for each in proto.graph.node
                if each.op_type not in known
            )
            inner.proto, inner.num_inputs = proto, len(proto.graph.input)  # type: ignore[attr-defined]
            inner.get_input = lambda index: self._tensor(proto.graph.input[index])  # type: ignore[attr-defined]
            return not errors

        def get_error(index: int) -> Named:
            name, op_type, words = errors[index]
            told = {"node_name": name, "node_operator": op_type, "desc": words, "node": index}
            return self.wrap(
                "ParserError", SimpleNamespace(**{key: lambda value=value: value for key, value in told.items()})
            )

        return self.wrap("OnnxParser", Parser(parse, get_error, errors))

    def _tensor(self, value: onnx.ValueInfoProto) -> Named:
        sizes = tuple(size.dim_value or -1 for size in value.type.tensor_type.shape.dim)
        return self.wrap("ITensor", SimpleNamespace(name=value.name, shape=sizes))

    def _build(self, logger: object, network: object, config: object) -> bytes | None:
        assert isinstance(config, Config)
        self.configs.append(config)
        reason = _objection(network, config)
        if reason:
            logger.log(self.module.ILogger.ERROR, f"Error Code 4: {reason}")  # type: ignore[attr-defined]
            return None
        profiles = [profile.shapes for profile in config.profiles]  # type: ignore[attr-defined]
        header = json.dumps({"version": self.version, "profiles": profiles}).encode()
        return header + b"\n" + network.proto.SerializeToString()  # type: ignore[attr-defined]

    def _make_runtime(self, logger: object) -> Named:
        def deserialize(serialized_engine: bytes) -> Named | None:
            header, _, model = serialized_engine.partition(b"\n")
            told = json.loads(header)
            if told["version"] != self.version:
                logger.log(self.module.ILogger.ERROR, "Version tag does not match")  # type: ignore[attr-defined]
                return None
            return self.wrap("ICudaEngine", Engine(self, onnx.load_from_string(model), told["profiles"]))

        return self.wrap("Runtime", SimpleNamespace(deserialize_cuda_engine=deserialize))


class Parser:
    """What was parsed, and what stood against it."""

    def __init__(self, parse: Callable[..., bool], get_error: Callable[[int], Named], errors: list[object]) -> None:
        self.parse, self.get_error, self._errors = parse, get_error, errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)


def _objection(network: object, config: Config) -> str:
    """Return why a builder of this kind returns nothing."""
    graph = network.proto.graph  # type: ignore[attr-defined]
    has_codes = any(node.op_type == "QuantizeLinear" for node in graph.node)
    halves = [each for each in graph.initializer if each.data_type == onnx.TensorProto.FLOAT16]
    typed = {"INT8": has_codes, "FP16": bool(halves)}
    if network.is_strong:  # type: ignore[attr-defined]
        return "flags of precision in a strongly typed network" if {"INT8", "FP16"} & config.flags_set else ""
    missing = [name for name, is_needed in typed.items() if is_needed and name not in config.flags_set]
    return f"the file holds {missing[0]}, which is not enabled" if missing else ""


class Engine:
    """A model, evaluated by onnx's reference."""

    def __init__(self, double: Double, proto: onnx.ModelProto, profiles: list[dict[str, list[list[int]]]]) -> None:
        self.double, self.proto, self.profiles = double, proto, profiles
        self.values = {each.name: each for each in (*proto.graph.input, *proto.graph.output)}
        self.num_io_tensors = len(self.values)

    def get_tensor_name(self, index: int) -> str:
        return list(self.values)[index]

    def get_tensor_mode(self, name: str) -> enum.IntEnum:
        is_input = name in {each.name for each in self.proto.graph.input}
        return self.double.module.TensorIOMode["INPUT" if is_input else "OUTPUT"]

    def get_tensor_dtype(self, name: str) -> enum.IntEnum:
        element = helper.tensor_dtype_to_np_dtype(self.values[name].type.tensor_type.elem_type)
        return self.double.module.DataType[ELEMENTS[str(element)]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size.dim_value or -1 for size in self.values[name].type.tensor_type.shape.dim)

    def is_shape_inference_io(self, name: str) -> bool:
        return False

    def create_execution_context(self) -> Named:
        return self.double.wrap("IExecutionContext", Context(self))

    def create_engine_inspector(self) -> Named:
        return self.double.wrap("EngineInspector", SimpleNamespace(get_engine_information=self._describe))

    def _describe(self, form: enum.IntEnum) -> str:
        assert form.name == "JSON"
        key = "Datatype" if self.double.major > 10 else "Format/Datatype"
        first = self.values[self.get_tensor_name(0)].name
        word = WORDS[self.get_tensor_dtype(first).name]
        layers = [
            {
                "Name": node.name,
                "LayerType": f"Cask{node.op_type}",
                "Inputs": [{"Name": node.input[0], key: word}],
                "Outputs": [{"Name": node.output[0], key: word}],
                "Metadata": f"[ONNX Layer: {node.name}]",
            }
            for node in self.proto.graph.node
        ]
        return json.dumps({"Layers": layers})


class Context:
    """One inference at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.profiler = engine, None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        known = onnx.ModelProto.FromString(engine.proto.SerializeToString())
        known.opset_import[0].version = max(known.opset_import[0].version, 21)  # the evaluator's Q/DQ begin with 19
        self._evaluator = ReferenceEvaluator(known)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        declared, opened = self._engine.get_tensor_shape(name), self._engine.profiles
        if -1 in declared:
            low, _, high = opened[0][name]
            fits = all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True))
        else:
            fits = shape == declared
        self._shapes[name] = shape
        return fits

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        batch = next(iter(self._shapes.values()))[0]
        return tuple(batch if size == -1 else size for size in self._engine.get_tensor_shape(name))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle
        feeds = {name: self._at(name, shape) for name, shape in self._shapes.items()}
        names = [each.name for each in self._engine.proto.graph.output]
        for name, value in zip(names, self._evaluator.run(names, feeds), strict=True):
            self._at(name, value.shape)[...] = value
        if self.profiler is not None:
            for node in self._engine.proto.graph.node:
                self.profiler.report_layer_time(node.name, 0.25)
        return True

    def _at(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        element = {word: np.dtype(each) for each, word in ELEMENTS.items()}[self._engine.get_tensor_dtype(name).name]
        size = int(np.prod(shape)) * element.itemsize
        memory = (ctypes.c_char * size).from_address(self._addresses[name])
        return np.frombuffer(memory, element).reshape(shape)


class CudaPythonDouble(ModuleType):
    """cuda-python's runtime, whose GPU is this process: addresses are its own."""

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.allocated: dict[int, np.ndarray] = {}
        self.cudaMemcpyKind = enum.IntEnum("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        block = np.empty(size, np.uint8)
        self.allocated[block.ctypes.data] = block
        return 0, block.ctypes.data

    def cudaFree(self, address: int) -> tuple[int]:
        return (0 if self.allocated.pop(address, None) is not None else 1,)

    def cudaStreamCreate(self) -> tuple[int, int]:
        return 0, 7

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        return (0 if stream == 7 else 400,)

    def cudaMemcpyAsync(self, to: int, source: int, count: int, kind: enum.IntEnum, stream: int) -> tuple[int]:
        assert isinstance(kind, self.cudaMemcpyKind)
        on_gpu = to if kind == 1 else source
        if count > self.allocated[on_gpu].size:
            return (1,)
        ctypes.memmove(to, source, count)
        return (0,)

    def cudaGetErrorString(self, code: int) -> tuple[int, bytes]:
        return 0, b"invalid argument"
