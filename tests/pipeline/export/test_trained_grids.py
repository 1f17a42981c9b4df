"""What training makes of a network is what the file holds: 4-bit weights, learned scales, plans of mixed precision."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from torch import fx, nn

from calibration.scheme import Scheme
from pipeline.export.capture import capture
from pipeline.export.encode import encode
from pipeline.export.tidy import tidy
from pipeline.models.resnet import ResNet
from pipeline.models.trained import load_weights
from pipeline.models.vit import VisionTransformer
from pipeline.training.calibrate import Calibration, calibrate
from pipeline.training.fake_quantize import Scales, activation_quantizers, fix_scales, learn_scales, restore_grids
from pipeline.training.quantized_model import make_quantized
from targets.onnxruntime import OnnxRuntime
from targets.target import RunOptions

IMAGES = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(64) % 5
RESNET = ResNet(depth=8, width=4)


def trained(scheme: Scheme, scales: Scales = "ema", plan: frozenset[str] = frozenset()) -> fx.GraphModule:
    """Train a calibrated ResNet-8 for some steps and load what it became, as an export does."""
    torch.manual_seed(0)
    network = make_quantized(RESNET.build(3, 5).eval(), scheme, plan)
    calibrate(network, lambda index: IMAGES[index], len(IMAGES), Calibration())
    if scales == "learned":
        learn_scales(network)
    for quantizer in activation_quantizers(network).values():
        quantizer.moving = True
    optimizer = torch.optim.SGD(network.train().parameters(), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(IMAGES), LABELS).backward()
        optimizer.step()
    fix_scales(network.eval())
    loaded = make_quantized(RESNET.build(3, 5).eval(), scheme, plan)
    load_weights(loaded, {name: value.clone() for name, value in network.state_dict().items()}, where="test")
    restore_grids(loaded)
    restore_grids(network)
    assert torch.equal(loaded.eval()(IMAGES), network(IMAGES))
    return loaded.requires_grad_(False)


def exported(network: nn.Module) -> onnx.ModelProto:
    model = capture(network, torch.zeros(2, 3, 8, 8), 18, is_dynamic=True)
    tidy(model, name="test")
    encode(model.graph, OnnxRuntime.encoding)
    tidy(model, name="test")
    return ir.to_proto(model)


def logits(proto: onnx.ModelProto, path: Path) -> np.ndarray:
    onnx.save(proto, path)
    session = OnnxRuntime(graph_optimization="none").open(path, RunOptions())
    return session.bind({"image": IMAGES.numpy()})()["logits"]


@pytest.mark.parametrize(
    ("bits", "scales"),
    [
        (4, "learned"),
        pytest.param(4, "ema", marks=pytest.mark.slow),
        pytest.param(8, "learned", marks=pytest.mark.slow),
        pytest.param(8, "ema", marks=pytest.mark.slow),
    ],
)
def test_codes_of_few_bits_and_learned_scales_are_exported_as_trained(
    bits: int, scales: Scales, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    network = trained(Scheme(weight_bits=bits), scales)
    proto = exported(network)
    arrays = [numpy_helper.to_array(tensor) for tensor in proto.graph.initializer]
    codes = np.concatenate([array.ravel() for array in arrays if array.dtype == np.int8 and array.ndim > 1])
    largest = 2 ** (bits - 1) - 1
    assert np.abs(codes.astype(int)).max() <= largest
    assert scales == "learned" or (codes.min(), codes.max()) == (-largest, largest)
    in_torch = network(IMAGES).numpy()
    assert np.abs(logits(proto, tmp_path / "m.onnx") - in_torch).max() < 0.05 * in_torch.std()  # a code here and there


def test_learned_scales_differ_from_followed_ones_and_both_from_where_they_began() -> None:
    followed, learned = (
        {name: grid.scale.item() for name, grid in activation_quantizers(trained(Scheme(), scales)).items()}
        for scales in ("ema", "learned")
    )
    start = make_quantized(_resnet(), Scheme())
    calibrate(start, lambda index: IMAGES[index], len(IMAGES), Calibration())
    began = {name: grid.scale.item() for name, grid in activation_quantizers(start).items()}
    for name in began.keys() - {"quantize_x"}:
        assert len({followed[name], learned[name], began[name]}) == 3, name


def _resnet() -> nn.Module:
    torch.manual_seed(0)
    return RESNET.build(3, 5).eval()


def test_a_plan_is_seen_in_the_file_by_the_same_names(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    network = trained(Scheme(), plan=frozenset({"layer2", "linear"}))
    proto = exported(network)
    by_output = {output: node for node in proto.graph.node for output in node.output}
    layers = {
        node.name: by_output[node.input[1]].op_type == "DequantizeLinear" if node.input[1] in by_output else False
        for node in proto.graph.node
        if node.op_type in ("Conv", "Gemm")
    }
    floats = {name for name, is_integer in layers.items() if not is_integer}
    assert floats == {name for name in layers if name.startswith(("layer2.", "linear/"))}
    assert len(floats) == 4
    assert np.abs(logits(proto, tmp_path / "m.onnx") - network(IMAGES).numpy()).max() < 0.05


def test_a_quantized_transformer_computes_in_onnx_what_it_does_in_torch(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = VisionTransformer(image_size=8, patch_size=2, width=24, depth=1)
    network = make_quantized(model.build(3, 5).eval(), Scheme())
    calibrate(network, lambda index: IMAGES[index], len(IMAGES), Calibration())
    restore_grids(network)
    in_torch = network.eval().requires_grad_(False)(IMAGES).numpy()
    assert np.abs(logits(exported(network), tmp_path / "m.onnx") - in_torch).max() < 0.05 * in_torch.std()
