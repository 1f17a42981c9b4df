"""Students and teachers by name; the user's own by path. The union is the registry."""

from typing import Annotated

from pydantic import Discriminator, Tag
from torch import nn
from torch.nn.parameter import is_lazy

from pipeline.errors import RecipeError
from pipeline.kinds import kind_of
from pipeline.models.mobilenet import MobileNetV2, MobileNetV3
from pipeline.models.resnet import ResNet
from pipeline.models.vit import VisionTransformer
from pipeline.user_files import UserObject

AnyModel = Annotated[
    Annotated[ResNet, Tag("resnet")]
    | Annotated[MobileNetV2, Tag("mobilenet_v2")]
    | Annotated[MobileNetV3, Tag("mobilenet_v3")]
    | Annotated[VisionTransformer, Tag("vit")]
    | Annotated[UserObject, Tag("FILE.py:NAME")],
    Discriminator(kind_of),
]


def build_model(model: AnyModel, channels: int, num_classes: int) -> nn.Module:
    """Return the untrained network: float[N, channels, H, W] to logits[N, num_classes].

    Raises:
        RecipeError: the user's own callable gave no torch.nn.Module, one without weights, or with weights of no size.
    """
    if not isinstance(model, UserObject):
        return model.build(channels, num_classes)
    built = model.build()
    if not isinstance(built, nn.Module):
        raise RecipeError(f"{model.kind}: expected it to return a torch.nn.Module; got {type(built).__name__}")
    if next(built.parameters(), None) is None:
        raise RecipeError(f"{model.kind}: expected a network with weights; got {type(built).__name__} without any")
    for name, value in (*built.named_parameters(), *built.named_buffers()):
        if is_lazy(value):
            layer = built.get_submodule(name.rpartition(".")[0])
            raise RecipeError(
                f"{model.kind}: expected layers that know their sizes; got {type(layer).__name__} at "
                f"{name.rpartition('.')[0]!r}, whose weights have none before the first image: write "
                f"{type(layer).__name__.removeprefix('Lazy')} with its sizes"
            )
    return built
