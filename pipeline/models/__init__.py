"""Students and teachers by name; the user's own by path. The union is the registry."""

from typing import Annotated

from pydantic import Discriminator, Tag
from torch import nn

from pipeline.errors import RecipeError
from pipeline.kinds import kind_of
from pipeline.models.resnet import ResNet
from pipeline.user_files import UserObject

AnyModel = Annotated[
    Annotated[ResNet, Tag("resnet")] | Annotated[UserObject, Tag("FILE.py:NAME")],
    Discriminator(kind_of),
]


def build_model(model: "ResNet | UserObject", channels: int, num_classes: int) -> nn.Module:
    """Return the untrained network: float[N, channels, H, W] to logits[N, num_classes].

    Raises:
        RecipeError: the user's own callable gave no torch.nn.Module, or one without weights.
    """
    if isinstance(model, UserObject):
        built = model.build()
        if not isinstance(built, nn.Module):
            raise RecipeError(f"{model.kind}: expected it to return a torch.nn.Module; got {type(built).__name__}")
        if next(built.parameters(), None) is None:
            raise RecipeError(f"{model.kind}: expected a network with weights; got {type(built).__name__} without any")
        return built
    return model.build(channels, num_classes)
