"""Augmentation by view id: every augmented view of an image has a number, so a teacher's output can be kept for it.

Rule: a schedule, seeded by itself and not by the student, says which view of each image a column shows. Two students
of one sweep meet the same views, and the teacher is paid once.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.tasks.classification import Views
from targets.processing import Processing


class ViewSchedule:
    """Column c shows one view of every image; over `views.count` columns each image shows each view exactly once."""

    def __init__(self, views: Views, num_images: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._order = torch.randperm(views.count, generator=generator)
        self._offset = torch.randint(views.count, (num_images,), generator=generator)

    def column(self, column: int) -> Tensor:
        """Return the view ids int64[num_images] of a column."""
        return self._order[(self._offset + column) % len(self._order)]


class ViewedImages:
    """Images uint8[N, H, W, C] on a device, served as normalized batches of chosen views."""

    def __init__(self, images_NHWC: Tensor, views: Views, processing: Processing) -> None:
        self._images, self._views, self._processing = images_NHWC, views, processing
        padding = views.padding
        self._side = 2 * padding + 1
        self._padded = F.pad(images_NHWC, (0, 0, padding, padding, padding, padding)) if padding else images_NHWC
        num, height, width, channels = self._padded.shape
        size = (num, self._side, self._side, height - 2 * padding, width - 2 * padding, channels)
        step_n, step_h, step_w, step_c = self._padded.contiguous().stride()
        self._windows = self._padded.contiguous().as_strided(size, (step_n, step_h, step_w, step_h, step_w, step_c))
        self._plain = padding * self._side + padding
        device = images_NHWC.device
        self._scale = torch.tensor(processing.scale, device=device).view(1, -1, 1, 1)
        self._bias = torch.tensor(processing.bias, device=device).view(1, -1, 1, 1)

    def __len__(self) -> int:
        return len(self._padded)

    @property
    def device(self) -> torch.device:
        """Where the images are, and where batches come from."""
        return self._images.device

    def to(self, device: torch.device) -> "ViewedImages":
        """Return the same images on `device`."""
        if device == self.device:
            return self
        return ViewedImages(self._images.to(device), self._views, self._processing)

    def batch(self, index_B: Tensor, views_B: Tensor | None = None) -> Tensor:
        """Return float32[B, C, H, W], normalized, in channels_last layout.

        View v is the crop at row (v mod s^2) // s and column v mod s of the padded image, with s = 2 padding + 1;
        mirrored where v >= s^2. Without `views_B`: the plain images.
        """
        area = self._side * self._side
        views_B = torch.full_like(index_B, self._plain) if views_B is None else views_B
        place = views_B % area
        pixels = self._windows[index_B, place // self._side, place % self._side]
        pixels = torch.where((views_B >= area).view(-1, 1, 1, 1), pixels.flip(2), pixels)
        return pixels.permute(0, 3, 1, 2).to(torch.float32) * self._scale + self._bias
