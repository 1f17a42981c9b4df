"""aimet-torch 2.42: post-training quantization of the torch student, exported as Q/DQ with int8 constants.

Rule: imports nothing of Edgeproof; runs in an environment of its own.
"""

import torch
from request import read_request
from torchvision_on_cpu import declare_missing_operators

OPERATORS = declare_missing_operators()

import aimet_torch  # noqa: E402 - after the declarations
import aimet_torch.onnx  # noqa: E402
from aimet_torch.batch_norm_fold import fold_all_batch_norms  # noqa: E402
from aimet_torch.model_preparer import prepare_model  # noqa: E402
from aimet_torch.quantsim import QuantizationSimModel  # noqa: E402

BATCH_SIZE = 64


def main() -> None:
    """Fold BatchNorm, calibrate, and export: weights per channel (its default), activations uint8, biases int32."""
    request = read_request(__doc__)
    images_NCHW = torch.from_numpy(request.images)
    example = images_NCHW[:1]
    network = prepare_model(torch.load(request.model, weights_only=False).eval())
    fold_all_batch_norms(network, input_shapes=tuple(example.shape), dummy_input=example)
    simulated = QuantizationSimModel(network, example)

    def calibrate(model: torch.nn.Module) -> None:
        with torch.no_grad():
            for images in torch.split(images_NCHW, BATCH_SIZE):
                model(images)

    simulated.compute_encodings(calibrate)
    aimet_torch.onnx.export(
        simulated,
        (example,),
        str(request.out),
        export_int32_bias=True,
        prequantize_constants=True,
        force_activation_as="unsigned",
        dynamo=True,
        external_data=False,
        opset_version=20,
        input_names=[request.input],
        output_names=["logits"],
    )


if __name__ == "__main__":
    main()
