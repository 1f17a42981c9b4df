"""Networks by name, the user's own, and what is said of checkpoints that do not fit."""

import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.errors import DataError, RecipeError
from pipeline.models import build_model
from pipeline.models.mobilenet import MobileNetV2, MobileNetV3
from pipeline.models.resnet import ResNet
from pipeline.models.trained import load_weights, read_state, save_weights
from pipeline.models.vit import VisionTransformer
from pipeline.tasks.cifar10 import Cifar10
from pipeline.tasks.classification import Normalization
from pipeline.tasks.dataset import Dataset, Split
from pipeline.training.evaluate import accuracy_of
from pipeline.training.student_run import build_network
from pipeline.user_files import UserObject

RESNET_56 = ResNet(depth=56, shortcut="A")


@pytest.mark.parametrize(
    ("depth", "shortcut", "parameters"),
    [
        (20, "A", 269_722),  # the table of akamaster/pytorch_resnet_cifar10
        (32, "A", 464_154),
        (44, "A", 658_586),
        (56, "A", 853_018),
        (110, "A", 1_727_962),
        # 3x3 kernels, two numbers a channel for each BatchNorm, 1x1 shortcuts, linear: by hand
        (8, "B", 464 + 4_672 + (13_824 + 128 + 512 + 64) + (55_296 + 256 + 2_048 + 128) + 650),
    ],
)
def test_a_resnet_has_the_published_number_of_parameters(depth: int, shortcut: str, parameters: int) -> None:
    network = ResNet(depth=depth, shortcut=shortcut).build(3, 10)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert (
        sum(isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in n for n, m in network.named_modules()) == depth
    )


def test_shapes_are_halved_twice_and_any_image_size_is_taken() -> None:
    network = ResNet(depth=8, width=4).build(1, 7).eval()
    assert network.layer3(network.layer2(network.layer1(torch.zeros(1, 4, 16, 12)))).shape == (1, 16, 4, 3)
    assert network(torch.zeros(3, 1, 9, 33)).shape == (3, 7)


def test_a_depth_that_is_none_names_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"depth: expected 6n \+ 2 \(8, 14, 20, 32, 44, 56, 110\); got 18"):
        ResNet(depth=18)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [(MobileNetV2(), 3_504_872), (MobileNetV3(), 2_542_856)],  # torchvision 0.28: mobilenet_v2, mobilenet_v3_small
)
def test_a_mobilenet_has_the_published_number_of_parameters(model: MobileNetV2 | MobileNetV3, parameters: int) -> None:
    assert sum(parameter.numel() for parameter in model.build(3, 1000).parameters()) == parameters


def test_a_transformer_has_the_parameters_that_its_formula_gives() -> None:
    """Twelve blocks of ViT-Tiny (arXiv 2012.12877, table 1: 5.7 M for 224 x 224 and 1000 classes)."""
    model = VisionTransformer(
        image_size=224,
        patch_size=16,
        stem="patches",
        width=192,
        depth=12,
        heads=3,
        mlp_ratio=4.0,
        pooling="class_token",
    )
    assert sum(parameter.numel() for parameter in model.build(3, 1000).parameters()) == 5_717_416


SMALL = (
    MobileNetV2(width=0.25, last_channels=32),
    MobileNetV3(width=0.25, last_channels=32),
    VisionTransformer(width=24, depth=2),
    VisionTransformer(width=24, depth=2, pooling="class_token", stem="patches"),
)


@pytest.mark.parametrize("model", SMALL, ids=lambda model: model.kind)
def test_students_learn_one_batch_by_heart(model: MobileNetV2 | MobileNetV3 | VisionTransformer) -> None:
    torch.manual_seed(0)
    network, images, labels = model.build(1, 4), torch.randn(8, 1, 32, 32), torch.arange(8) % 4
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        losses.append(F.cross_entropy(network.train()(images), labels))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("model", SMALL[:2], ids=lambda model: model.kind)
@pytest.mark.parametrize("size", [8, 33, 64])
def test_mobilenets_take_any_image_size(model: MobileNetV2 | MobileNetV3, size: int) -> None:
    assert model.build(3, 5).eval()(torch.zeros(2, 3, size, size)).shape == (2, 5)


def test_strides_are_fields_and_stages_end_where_images_shrink() -> None:
    rows = ({"expansion": 1, "channels": 8}, {"expansion": 4, "channels": 16, "repeats": 2, "stride": 2})
    network = MobileNetV2(blocks=rows, stem_stride=2).build(3, 5).eval()
    assert network.features[:-1](torch.zeros(1, 3, 32, 32)).shape == (1, 16, 8, 8)
    assert network.stages == ("features.1", "features.3")


def test_a_transformer_that_cannot_be_cut_says_why() -> None:
    with pytest.raises(ValueError, match=r"image_size: expected a multiple of patch_size 8; got 36"):
        VisionTransformer(image_size=36, patch_size=8)
    with pytest.raises(ValueError, match=r"width: expected a multiple of heads 5; got 96"):
        VisionTransformer(heads=5)


def small_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return ResNet(depth=8, width=2).build(3, 4).state_dict()


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_weights_load_from_wrapped_checkpoints(tmp_path: Path, prefix: str, wrapper: str | None) -> None:
    state = {f"{prefix}{name}": value for name, value in small_state().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "teacher.pth")
    network = ResNet(depth=8, width=2).build(3, 4)
    load_weights(network, read_state(tmp_path / "teacher.pth"), where="teacher")
    assert torch.equal(network.linear.weight, small_state()["linear.weight"])


def test_a_name_of_the_users_own_is_not_taken_for_a_wrapper(tmp_path: Path) -> None:
    class Wrapping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(3, 2)

    network = Wrapping()
    torch.save(network.state_dict(), tmp_path / "teacher.pt")
    other = Wrapping()
    load_weights(other, read_state(tmp_path / "teacher.pt"), where="teacher")
    assert torch.equal(other.model.weight, network.model.weight)


def test_the_wrong_architecture_lists_missing_unexpected_and_misshaped() -> None:
    state = small_state()
    state["extra.weight"] = state.pop("conv1.weight")
    with pytest.raises(DataError) as caught:
        load_weights(ResNet(depth=8, width=2).build(3, 10), state, where="teacher.pt")
    message = str(caught.value)
    assert message.startswith("teacher.pt: expected the weights of ResNet (")
    assert (
        "1 missing: conv1.weight; 1 unexpected: extra.weight; 2 of another shape: linear.bias (expected [10], got [4])"
        in message
    )
    assert message.endswith("Name the model that the checkpoint was made for")


class _Payload:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickled_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": small_state(), "optimizer": _Payload(tmp_path / "run")}, tmp_path / "teacher.pt")
    with pytest.raises(
        DataError, match=r"teacher.pt: expected tensors only; got a pickled posix.mkdir, which could run"
    ):
        read_state(tmp_path / "teacher.pt")
    assert not (tmp_path / "run").exists()


def test_the_shared_checkpoint_with_an_optimizer_in_it_is_refused(shared_data: Path) -> None:
    path = shared_data / "teachers" / "distiller_resnet20_cifar10" / "resnet20_cifar10_checkpoint.pth.tar"
    with pytest.raises(DataError, match=r"expected tensors only; got a pickled torch.optim.sgd.SGD"):
        read_state(path)


@pytest.mark.parametrize("name", ["teacher.pt", "teacher.safetensors"])
def test_a_damaged_checkpoint_is_an_error_in_words(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save = safetensors.torch.save_file if name.endswith("safetensors") else torch.save
    save({name: value.contiguous() for name, value in small_state().items()}, path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    damaged = [b"", b"\x80", b"garbage", whole[:-9], whole[: len(whole) // 2], whole[:30]]
    damaged += [rng.bytes(int(size)) for size in rng.integers(1, 300, 60)]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}: expected (a torch checkpoint|a safetensors file|a state dict)"):
            read_state(path)


def test_a_file_without_tensors_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "teacher.pt")
    with pytest.raises(DataError, match=r"expected a state dict \(names to tensors\); got dict without tensors"):
        read_state(tmp_path / "teacher.pt")


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    network = ResNet(depth=8, width=2).build(3, 4)
    first = save_weights(tmp_path / "a.safetensors", network)
    network.to(memory_format=torch.channels_last)
    assert save_weights(tmp_path / "b.safetensors", network) == first


@pytest.mark.parametrize(("width", "height"), [(8, 8), (5, 9)])
def test_the_zero_padded_shortcut_centres_the_old_channels(width: int, height: int) -> None:
    block = ResNet(depth=8, width=2, shortcut="A").build(3, 4).layer2[0]
    x = torch.randn(1, 2, height, width)
    y = block.shortcut(x)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert not y[:, [0, 3]].any()


def users_model(folder: Path, body: str) -> UserObject:
    (folder / "mine.py").write_text(f"import torch\nfrom torch import nn\n\n{body}\n")
    return UserObject.model_validate({"kind": "./mine.py:build"}, context={"folder": folder})


@pytest.fixture
def dataset() -> Dataset:
    split = Split(np.zeros((4, 6, 6, 3), np.uint8), np.zeros(4, np.int64))
    return Dataset(split, split, split, ("a", "b"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("build = dict", r"expected it to return a torch.nn.Module; got dict"),
        ("build = nn.ReLU", r"expected a network with weights; got ReLU without any"),
        (
            "def build(): return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))",
            r"expected layers that know their sizes; got LazyLinear at '1', .*: write Linear with its sizes",
        ),
        (
            "def build(): return nn.Sequential(nn.Flatten(), nn.Linear(108, 5))",
            r"expected logits of shape \(1, 2\), one a class of the data; got \(1, 5\)",
        ),
        (
            "def build(): return nn.Sequential(nn.Flatten(), nn.Linear(99, 2))",
            r"expected a model that takes images float32\[1, 3, 6, 6\]; got mat1 and mat2 shapes cannot be multiplied",
        ),
    ],
)
def test_a_users_model_that_does_not_fit_the_data_is_told_so(
    tmp_path: Path, dataset: Dataset, body: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEPROOF_DATA", raising=False)
    with pytest.raises(RecipeError, match=message):
        build_network(users_model(tmp_path, body), dataset)


def test_trying_a_model_changes_neither_it_nor_what_is_drawn_next(dataset: Dataset) -> None:
    model = ResNet(depth=8, width=2)
    torch.manual_seed(3)
    plain, drawn = build_model(model, 3, 2), torch.rand(1)
    torch.manual_seed(3)
    tried, drawn_after = build_network(model, dataset), torch.rand(1)
    assert tried.training == plain.training
    assert drawn == drawn_after
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), tried.state_dict().values(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "accuracy"),
    [("derived/resnet56_ft_jpeg.pt", 0.8899), ("akamaster_resnet_cifar10/resnet56-4bfd9763.th", 0.8320)],
)
def test_shared_teachers_are_as_accurate_as_they_were_measured(shared_data: Path, file: str, accuracy: float) -> None:
    test = Cifar10(folder=str(shared_data / "cifar10")).load().test
    network = RESNET_56.build(3, 10)
    load_weights(network, read_state(shared_data / "teachers" / file), where=file)
    processing = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).processing()
    measured = accuracy_of(network.eval(), test.take(np.arange(0, 10_000, 20)), processing)
    assert measured == pytest.approx(accuracy, abs=0.045)  # three standard errors of 500 images
