"""NNCF 3.4 post-training quantization, of the ONNX model or, for OpenVINO, of OpenVINO's model.

Rule: imports nothing of Edgeproof; runs in an environment of its own.
"""

import nncf
import onnx
import openvino
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, QuantizationParameters
from request import read_request


def main() -> None:
    """Calibrate on all images and write Q/DQ as ONNX, or IR where the file is to be .xml.

    `per_tensor`: one scale for all channels of an activation too, where NNCF's default gives depthwise convolutions one
    a channel, which ONNX Runtime does not fuse.
    """
    request = read_request(__doc__, ("default", "per_tensor"))
    per_tensor = AdvancedQuantizationParameters(
        activations_quantization_params=QuantizationParameters(per_channel=False)
    )
    is_ir = request.out.suffix == ".xml"
    quantized = nncf.quantize(
        openvino.Core().read_model(request.model) if is_ir else onnx.load(request.model),
        nncf.Dataset(request.feeds),
        subset_size=len(request.images),
        model_type=nncf.ModelType.TRANSFORMER if request.is_transformer else None,
        advanced_parameters=per_tensor if request.variant == "per_tensor" else None,
    )
    if is_ir:
        openvino.save_model(quantized, request.out, compress_to_fp16=False)
    else:
        onnx.save(quantized, request.out)


if __name__ == "__main__":
    main()
