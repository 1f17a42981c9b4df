"""Whether an NVIDIA driver answers, and for which GPU: asked in a process of its own, before TensorRT is touched.

Rule: without a driver TensorRT crashes where it should raise, and a broken driver may crash whoever asks it; here both
are an answer. `python -m targets.tensorrt_driver LIBRARY` asks. Devices carry this file: Python 3.8, standard library.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Dict, Optional

from targets.errors import DeviceError

LIBRARY = "libcuda.so.1"
MAJOR, MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""
CODES = {100: "no GPU", 101: "no such GPU", 35: "a driver that is too old", 999: "a driver in an unknown state"}
"""What cuInit returns, where it says something to users."""
PROBE_TIMEOUT_S = 60.0
MEND = (
    "install the GPU's driver (on a Jetson it comes with JetPack), and see whether nvidia-smi answers (on a Jetson: "
    "tegrastats); in a container, start it with --gpus all (on a Jetson: --runtime nvidia)"
)


@dataclass(frozen=True)
class Gpu:
    """What the driver says of the first GPU."""

    name: str
    architecture: str
    """Compute capability, such as 8.7."""
    cuda: str
    """The newest CUDA that the driver serves."""


@lru_cache(maxsize=None)
def probe_gpu(library: str = LIBRARY) -> Gpu:
    """Return the GPU that engines are built for and run on.

    Raises:
        DeviceError: no driver answers; says what came instead.
    """
    root = Path(__file__).absolute().parent.parent  # a folder, or the zip application, which Python imports from too
    try:
        done = subprocess.run(
            [sys.executable, "-m", "targets.tensorrt_driver", library],
            env={**os.environ, "PYTHONPATH": str(root)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _no_driver(f"no answer within {PROBE_TIMEOUT_S:g} s") from error
    if done.returncode < 0:
        raise _no_driver(f"{signal.Signals(-done.returncode).name} when it was asked")
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    if done.returncode:
        raise _no_driver(lines[-1] if lines else f"exit code {done.returncode}")
    return Gpu(**json.loads(done.stdout.decode("utf-8").splitlines()[-1]))


def read_l4t(root: Path = Path("/")) -> str:
    """Return the version of Jetson Linux, such as 36.4.3; `none` on other machines."""
    path = root / "etc/nv_tegra_release"
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return "none" if match is None else "{}.{}".format(*match.groups())


def _no_driver(got: str) -> DeviceError:
    return DeviceError(f"tensorrt: expected an NVIDIA driver that answers; got {got}; {MEND}")


def _ask(library: str) -> Dict[str, str]:
    cuda = ctypes.CDLL(library)
    _require(cuda.cuInit(0))
    device, name, number = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_int()
    _require(cuda.cuDeviceGet(ctypes.byref(device), 0))
    _require(cuda.cuDeviceGetName(name, len(name), device))
    capability = []
    for attribute in (MAJOR, MINOR):
        _require(cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device))
        capability.append(str(number.value))
    _require(cuda.cuDriverGetVersion(ctypes.byref(number)))
    version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    return {"name": name.value.decode("utf-8", "replace"), "architecture": ".".join(capability), "cuda": version}


def _require(code: int) -> None:
    if code:
        raise OSError("{} (CUDA error {})".format(CODES.get(code, "an error"), code))


def main(library: str) -> Optional[str]:
    """Print what the driver says as JSON; return what stands against it."""
    try:
        answer = _ask(library)
    except (OSError, AttributeError) as error:
        return str(error)
    sys.stdout.write(json.dumps(answer) + "\n")
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
