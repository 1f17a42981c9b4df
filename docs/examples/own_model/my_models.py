"""Your own networks. `recipe.toml` names a function of this file, as `./my_models.py:build_student`.

The function gets the recipe's `arguments` and returns a torch.nn.Module, untrained, that turns float images
[N, channels, height, width] into logits [N, classes]. Edit this file, and what depends on it is trained again.
"""

from torch import Tensor, nn


def build_student(num_classes: int, channels: int = 1, width: int = 8) -> nn.Module:
    """Return a network of three convolutions, one of them with a branch around it."""
    return nn.Sequential(
        *_convolution(channels, width),
        Around(nn.Sequential(*_convolution(width, width))),
        nn.MaxPool2d(2),
        *_convolution(width, 2 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, num_classes),
    )


class Around(nn.Module):
    """Adds what goes in to what `inner` makes of it: quantization finds both branches by itself."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: Tensor) -> Tensor:
        """Return features + inner(features)."""
        made: Tensor = self.inner(features)
        return features + made


def _convolution(channels_in: int, channels: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels, kernel_size=3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels), nn.ReLU()
