"""Writes tensorrt_names.json: the names that TensorRT's Python bindings have, read from the bindings themselves.

    python tests/targets/read_tensorrt_names.py tests/targets/tensorrt_names.json VERSION=BINDINGS.so ...

The bindings come from PyPI (tensorrt-bindings 8.6.1, tensorrt-cu12-bindings 10.3.0, tensorrt-cu13-bindings 11.4.0.106;
`pip download --no-deps`); the libraries that they link against do not, so this builds empty ones in their place, with a
C compiler: enough to import the bindings, which register their classes, and to call nothing.
"""

import importlib.machinery
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CLASSES = (
    *("Builder", "IBuilderConfig", "BuilderFlag", "NetworkDefinitionCreationFlag", "INetworkDefinition", "ITensor"),
    *("OnnxParser", "ParserError", "IOptimizationProfile", "MemoryPoolType", "ProfilingVerbosity", "DeviceType"),
    *("ITimingCache", "IHostMemory", "ILogger", "Runtime", "ICudaEngine", "IExecutionContext", "EngineInspector"),
    *("LayerInformationFormat", "DataType", "TensorIOMode", "IProfiler"),
)
"""Those that Edgeproof uses."""


def read_names(bindings: Path) -> dict[str, list[str]]:
    """Import the bindings, and return the public names of each class."""
    loader = importlib.machinery.ExtensionFileLoader("tensorrt", str(bindings))
    spec = importlib.util.spec_from_loader("tensorrt", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return {name: [each for each in dir(getattr(module, name)) if not each.startswith("_")] for name in CLASSES}


def build_stubs(bindings: Path, folder: Path) -> None:
    """Build a library with nothing in it for each of NVIDIA's that the bindings need."""
    needed = subprocess.run(["readelf", "-d", str(bindings)], capture_output=True, text=True, check=True).stdout
    wanted = subprocess.run(["nm", "-Du", str(bindings)], capture_output=True, text=True, check=True).stdout
    functions = [name for name in re.findall(r" U (\S+)", wanted) if re.match(r"\w*(Infer|nv|Nv|Plugin)\w*$", name)]
    source = folder / "stub.c"
    source.write_text("".join(f"void* {name}(void) {{ return 0; }}\n" for name in functions))
    for library in re.findall(r"\[(libnv\S+)\]", needed):
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(folder / library), str(source)]
        subprocess.run(command, check=True)


def main(arguments: list[str]) -> None:
    """Write the names of every version, each read in a process of its own that finds the stubs."""
    if arguments[0] == "--read":
        sys.stdout.write(json.dumps(read_names(Path(arguments[1]))))
        return
    out, *pairs = arguments
    names = {}
    for version, _, bindings in (pair.partition("=") for pair in pairs):
        with tempfile.TemporaryDirectory() as folder:
            build_stubs(Path(bindings), Path(folder))
            command = [sys.executable, __file__, "--read", bindings]
            environment = {**os.environ, "LD_LIBRARY_PATH": folder}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        names[version] = json.loads(done.stdout)
    lines = [
        f" {json.dumps(version)}: {{\n"
        + ",\n".join(f"  {json.dumps(name)}: {json.dumps(' '.join(members))}" for name, members in classes.items())
        + "\n }"
        for version, classes in names.items()
    ]
    Path(out).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
