"""A board without a GPU: packages that stand in for TensorRT and cuda-python, and a driver's library, as a user's
environment would have them."""

import os
from pathlib import Path

from cuda_libraries import build_driver

TENSORRT = """import sys
sys.path.append({tests!r})
from tensorrt_double import Double
globals().update(vars(Double({version!r}).module))
"""
CUDA = """import sys
sys.path.append({tests!r})
from tensorrt_double import CudaPythonDouble
sys.modules[__name__] = CudaPythonDouble()
"""


def make_board(folder: Path, version: str) -> dict[str, str]:
    """Write the packages and the library; return the environment in which a process finds them."""
    tests = str(Path(__file__).parent)
    bindings = folder / "cuda" / "bindings"
    bindings.mkdir(parents=True)
    for package in (bindings.parent, bindings):
        (package / "__init__.py").touch()
    (bindings / "runtime.py").write_text(CUDA.format(tests=tests))
    (folder / "tensorrt.py").write_text(TENSORRT.format(tests=tests, version=version))
    driver = build_driver(folder / "lib" / "libcuda.so.1")
    return {**os.environ, "PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(driver.parent)}
