"""ONNX Runtime's own static quantization: uint8 activations, int8 weights per channel, as its documentation advises.

Rule: imports nothing of Edgeproof; runs in an environment of its own.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from request import read_request


class Feeds(CalibrationDataReader):
    """Feeds of one image each, once."""

    def __init__(self, feeds: list[dict[str, np.ndarray]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next, None at the end."""
        return next(self._feeds, None)


def main() -> None:
    """Pre-process, calibrate by min-max, and write Q/DQ."""
    request = read_request(__doc__)
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(request.model, prepared)
        quantize_static(
            prepared,
            request.out,
            Feeds(request.feeds),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )


if __name__ == "__main__":
    main()
