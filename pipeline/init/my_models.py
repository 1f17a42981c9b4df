"""Your own networks. A recipe names a function of this file, as `./my_models.py:build_student`.

The function returns a torch.nn.Module that turns float images [N, channels, H, W] into logits [N, num_classes].
When you change this file, what depends on it is trained again.
"""

from torch import nn


def build_student(num_classes: int, channels: int = 3, width: int = 16) -> nn.Module:
    """Return a small convolutional network; the recipe's `arguments` are these."""
    return nn.Sequential(
        *_block(channels, width, stride=1),
        *_block(width, 2 * width, stride=2),
        *_block(2 * width, 4 * width, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )


def _block(channels_in: int, channels: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels), nn.ReLU()
