"""The peers of `make bench-quantization`: who quantizes, by which script, and the files that they made.

Rule: a file is kept under its content: the script, the versions, the model and the images that it was made from.
"""

import hashlib
import json
import os
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.quantization_students import BUILD, Prepared

SCRIPTS = Path(__file__).parent / "peers"
REQUIREMENTS = SCRIPTS / "quantization.txt"
TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Peer:
    """One column: a quantizer and the rows that its file is measured in."""

    column: str
    script: str
    variant: str = "default"
    file: str = "model.onnx"
    runtimes: tuple[str, ...] = ("onnxruntime", "openvino")
    takes_torch: bool = False


PEERS = (
    Peer("Olive", "olive_ptq.py"),
    Peer("Olive, u8s8", "olive_ptq.py", "u8s8"),
    Peer("NNCF", "nncf_ptq.py", runtimes=("onnxruntime",)),
    Peer("NNCF", "nncf_ptq.py", file="model.xml", runtimes=("openvino",)),
    Peer("NNCF, per tensor", "nncf_ptq.py", "per_tensor", runtimes=("onnxruntime",)),
    Peer("NNCF, per tensor", "nncf_ptq.py", "per_tensor", file="model.xml", runtimes=("openvino",)),
    Peer("aimet-torch", "aimet_ptq.py", takes_torch=True),
    Peer("quantize_static", "ort_static.py"),
    Peer("quantize_dynamic", "ort_dynamic.py"),
    Peer("quantize_dynamic, MatMul", "ort_dynamic.py", "matmul"),
)


@dataclass(frozen=True)
class Made:
    """What came of asking a peer: a file, or why there is none."""

    seconds: float
    file: str | None
    reason: str | None
    """The last line that it printed, where it failed."""

    @property
    def path(self) -> Path | None:
        """The file that it made."""
        return Path(self.file) if self.file else None


@dataclass(frozen=True)
class Workshop:
    """Where peers work: their Python, the images that they calibrate on, and where their files are kept."""

    python: Path
    images: Path
    kept: Path = BUILD / "peers"
    scripts: Path = SCRIPTS
    requirements: Path = REQUIREMENTS

    def make(self, peer: Peer, prepared: Prepared) -> Made:
        """Return what the peer makes of a student: from before where nothing changed, else its script is run."""
        folder = self.kept / self.content_key(peer, prepared)
        made_before = folder / "made.json"
        if made_before.is_file():
            return Made(**json.loads(made_before.read_text()))
        folder.mkdir(parents=True, exist_ok=True)
        out = folder / peer.file
        model = _model(peer, prepared)
        command = [str(self.python), peer.script, "--model", str(model.absolute()), "--out", str(out.absolute())]
        command += ["--images", str(self.images.absolute()), "--variant", peer.variant]
        command += ["--transformer"] if prepared.student.is_transformer else []
        made = self._run(command, out, folder / "said.txt")
        made_before.write_text(json.dumps(asdict(made), indent=2) + "\n")
        return made

    def content_key(self, peer: Peer, prepared: Prepared) -> str:
        """Return the sha256 of all that the peer's file depends on."""
        scripts = [self.scripts / peer.script, self.scripts / "request.py", self.requirements]
        digests = [file_digest(path) for path in (*scripts, _model(peer, prepared), self.images)]
        content = json.dumps([peer.variant, peer.file, prepared.student.is_transformer, *digests])
        return hashlib.sha256(content.encode()).hexdigest()

    def _run(self, command: list[str], out: Path, said: Path) -> Made:
        alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment = {**alone, "OLIVE_DISABLE_TELEMETRY": "1", "NNCF_CI": "1", "PYTHONWARNINGS": "ignore"}
        started = time.perf_counter()
        with said.open("w") as log:
            try:
                done = subprocess.run(
                    command, cwd=self.scripts, env=environment, stdout=log, stderr=log, timeout=TIMEOUT_S, check=False
                )
            except subprocess.TimeoutExpired:
                return Made(TIMEOUT_S, None, f"not done after {TIMEOUT_S:g} s")
        seconds = time.perf_counter() - started
        if done.returncode == 0 and out.is_file():
            return Made(seconds, str(out), None)
        lines = [line.strip() for line in said.read_text().splitlines() if line.strip()]
        return Made(seconds, None, (lines or [f"ended with {done.returncode}"])[-1][:300])


def _model(peer: Peer, prepared: Prepared) -> Path:
    return prepared.torch_file if peer.takes_torch else prepared.onnx.path


def file_digest(path: Path) -> str:
    """Return the sha256 of a model's file; of IR, with its weights."""
    digest = hashlib.sha256(path.read_bytes())
    if path.suffix == ".xml":
        digest.update(path.with_suffix(".bin").read_bytes())
    return digest.hexdigest()
