"""Libraries with the C interfaces of NVIDIA's driver and CUDA runtime, whose GPU is the host's memory."""

import shutil
import subprocess
from pathlib import Path

import pytest

DRIVER = """
int cuInit(unsigned flags) { %s }
int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char* name, int length, int device) { __builtin_strcpy(name, "Orin"); return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) { *value = attribute == 75 ? 8 : 7; return 0; }
int cuDriverGetVersion(int* version) { *version = 12060; return 0; }
"""
ANSWERS = "return 0;"

RUNTIME = """
#include <stdlib.h>
#include <string.h>
int cudaMalloc(void** address, size_t size) { *address = size > 1L << 40 ? 0 : malloc(size); return *address ? 0 : 2; }
int cudaFree(void* address) { free(address); return 0; }
int cudaStreamCreate(void** stream) { *stream = (void*)0x700000007; return 0; }
int cudaStreamDestroy(void* stream) { return stream == (void*)0x700000007 ? 0 : 400; }
int cudaStreamSynchronize(void* stream) { return stream == (void*)0x700000007 ? 0 : 400; }
int cudaMemcpyAsync(void* to, const void* from, size_t size, int kind, void* stream) {
    if (stream != (void*)0x700000007 || (kind != 1 && kind != 2)) return 400;
    memcpy(to, from, size);
    return 0;
}
const char* cudaGetErrorString(int code) { return code == 2 ? "out of memory" : "invalid resource handle"; }
"""


def build_library(path: Path, source: str) -> Path:
    """Compile a shared library; skips where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler: cc")
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-shared", "-fPIC", "-w", "-x", "c", "-o", str(path), "-"]
    subprocess.run(command, input=source, text=True, check=True)
    return path


def build_driver(path: Path, init: str = ANSWERS) -> Path:
    """Compile a driver of an Orin; `init` is the body of cuInit."""
    return build_library(path, DRIVER % init)
