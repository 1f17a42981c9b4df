"""Olive 0.13: its static quantization of ONNX models, as a workflow of two passes.

Rule: imports nothing of Edgeproof; runs in an environment of its own.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from request import Request, read_request
from torch.utils.data import Dataset
from torchvision_on_cpu import declare_missing_operators

OPERATORS = declare_missing_operators()

import olive  # noqa: E402 - after the declarations: it imports torchmetrics, which imports torchvision
from olive.data.registry import Registry  # noqa: E402

VARIANTS: dict[str, dict[str, object]] = {
    "default": {},
    "u8s8": {"activation_type": "uint8", "precision": "int8", "per_channel": True},
}
"""By name: what differs from the pass's defaults, which are int8 activations and one scale a weight."""


class Images(Dataset[tuple[dict[str, np.ndarray], int]]):
    """Images without labels, as Olive's data container wants them."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def __len__(self) -> int:
        return len(self._request.images)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], int]:
        return {self._request.input: self._request.images[index]}, 0


def main() -> None:
    """Run the workflow and keep its model."""
    request = read_request(__doc__, tuple(VARIANTS))

    def calibration_images(**_options: object) -> Images:
        return Images(request)

    Registry.register_dataset("calibration_images")(calibration_images)
    with TemporaryDirectory() as folder:
        workflow = {
            "input_model": {"type": "OnnxModel", "model_path": str(request.model)},
            "systems": {
                "local": {
                    "type": "LocalSystem",
                    "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
                }
            },
            "data_configs": [{"name": "calibration", "load_dataset_config": {"type": "calibration_images"}}],
            "passes": {
                "peephole": {"type": "OnnxPeepholeOptimizer"},
                "quantization": {
                    "type": "OnnxStaticQuantization",
                    "data_config": "calibration",
                    **VARIANTS[request.variant],
                },
            },
            "host": "local",
            "target": "local",
            "output_dir": f"{folder}/out",
            "cache_dir": f"{folder}/cache",
        }
        olive.run(workflow)
        found = sorted(Path(folder, "out").rglob("*.onnx"))
        print(f"models: {[str(path.relative_to(folder)) for path in found]}")
        shutil.copyfile(found[0], request.out)


if __name__ == "__main__":
    main()
