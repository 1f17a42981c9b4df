"""A laboratory for Swift packages: doubles of what Apple and ONNX Runtime would bring, and recorded answers."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
from python_packages import golden_images

from pipeline.release.payload import Package, Payload

DOUBLES = Path(__file__).with_name("swift_doubles")
SELF_TEST = """import XCTest

@testable import MODULE

final class SelfTestTests: XCTestCase {
    func testWriteSelfTest() throws {
        let result = try Classifier().selfTest(runs: 5, warmup: 2)
        try result.json().write(to: URL(fileURLWithPath: ProcessInfo.processInfo.environment["EDGEPROOF_SELF_TEST"]!))
    }
}
"""


def set_up(package: Package, module: str, folder: Path) -> Path:
    """Write the package beside the doubles, point it to them, and return its folder."""
    for name, content in package.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    shutil.copytree(DOUBLES, folder / "onnxruntime-swift-package-manager")
    manifest = folder / module / "Package.swift"
    pointed, count = re.subn(
        r'\.package\(url: "[^"]*/([\w-]+)", exact: "[\d.]+"\)', r'.package(path: "../\1")', manifest.read_text()
    )
    assert count == 1
    manifest.write_text(pointed)
    (folder / module / "Tests" / f"{module}Tests" / "SelfTestTests.swift").write_text(
        SELF_TEST.replace("MODULE", module)
    )
    return folder / module


def record(payload: Payload, folder: Path) -> None:
    """Write what the double of the runtime is asked, as the chain prepares it, and what it answers."""
    processing, batch = payload.manifest.interface.processing, payload.manifest.interface.inputs[0].shape[0] or 1
    golden = payload.golden
    logits_NK = np.frombuffer(payload.files[golden.outputs.file], np.float32).reshape(golden.outputs.shape)
    folder.mkdir()
    (folder / "inputs.bin").write_bytes(_in_batches(processing.preprocess(golden_images(payload)), batch))
    (folder / "outputs.bin").write_bytes(_in_batches(logits_NK, batch))


def swift_test(package: Path, recorded: Path, samples: int, self_test: Path) -> subprocess.CompletedProcess[str]:
    """Compile a package and run its tests."""
    told = {
        "EDGEPROOF_RECORDED": str(recorded),
        "EDGEPROOF_SAMPLES": str(samples),
        "EDGEPROOF_SELF_TEST": str(self_test),
    }
    return subprocess.run(
        ["swift", "test", "--disable-sandbox", "-j", "2", "-Xswiftc", "-warnings-as-errors"],
        cwd=package,
        env={**os.environ, **told},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )


def _in_batches(samples: np.ndarray, batch: int) -> bytes:
    """Return each sample as the first of a batch whose rest is zeros."""
    filled = np.zeros((len(samples), batch, *samples.shape[1:]), samples.dtype)
    filled[:, 0] = samples
    return filled.tobytes()
