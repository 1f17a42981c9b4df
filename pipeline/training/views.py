"""Augmentation by view id: every augmented view of an image has a number, so a teacher's output can be kept for it.

Rule: a schedule, seeded by itself and not by the student, says what a column shows of each image. Two students of one
sweep meet the same views, and the teacher is paid once. What has no finite number of views (mixing, colour) is drawn
from the seed of the schedule and the number of the column, so it comes again whenever the column does.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.tasks.classification import Views
from pipeline.tasks.student_input import Reduction
from pipeline.training.kernels.library import find_library
from pipeline.training.kernels.view_operator import Crops, show_views
from targets.processing import Processing


@dataclass(frozen=True)
class Column:
    """What one column of a schedule shows of every image."""

    views: Tensor
    """View ids int64[N]."""
    partners: Tensor | None = None
    """Rows int64[N] mixed into each image, in their own view."""
    share: Tensor | None = None
    """How much of each image stays, float32[N], at least a half."""
    colour: Tensor | None = None
    """Contrast and brightness float32[N, 2]: pixel p becomes (p - 127.5) contrast + 127.5 brightness."""

    def to(self, device: torch.device) -> "Column":
        """Return the same on `device`."""
        moved = (None if t is None else t.to(device) for t in (self.partners, self.share, self.colour))
        return Column(self.views.to(device), *moved)


class ViewSchedule:
    """Column c shows one view of every image; over `views.count` columns each image shows each view exactly once."""

    def __init__(self, views: Views, num_images: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._order = torch.randperm(views.count, generator=generator)
        self._offset = torch.randint(views.count, (num_images,), generator=generator)
        self._settings = views
        self._seed = seed

    def number(self, epoch: int) -> int:
        """Return the column that an epoch shows: they come again after `num_columns`."""
        num_columns = self._settings.num_columns
        return epoch if num_columns is None else epoch % num_columns

    def column(self, column: int) -> Column:
        """Return what a column shows."""
        views = self._order[(self._offset + column) % len(self._order)]
        num = len(views)
        random = np.random.default_rng([self._seed, column])
        partners = share = colour = None
        if self._settings.mixup:
            partners = torch.from_numpy(random.permutation(num))
            drawn = random.beta(self._settings.mixup, self._settings.mixup, num)
            share = torch.from_numpy(np.maximum(drawn, 1 - drawn).astype(np.float32))
        if self._settings.colour:
            low, high = 1 - self._settings.colour, 1 + self._settings.colour
            colour = torch.from_numpy(random.uniform(low, high, (num, 2)).astype(np.float32))
        return Column(views, partners, share, colour)


class ViewedImages:
    """Images uint8[N, H, W, C] on a device, served as normalized batches of chosen views.

    With a reduction each view is reduced after it is cut: student and teacher see the same view of an image.
    """

    def __init__(
        self, images_NHWC: Tensor, views: Views, processing: Processing, reduction: Reduction | None = None
    ) -> None:
        self._images, self._views, self._processing, self._reduction = images_NHWC, views, processing, reduction
        padding = views.padding
        self._side = 2 * padding + 1
        self._padded = F.pad(images_NHWC, (0, 0, padding, padding, padding, padding)) if padding else images_NHWC
        num, height, width, channels = self._padded.shape
        size = (num, self._side, self._side, height - 2 * padding, width - 2 * padding, channels)
        step_n, step_h, step_w, step_c = self._padded.contiguous().stride()
        self._windows = self._padded.contiguous().as_strided(size, (step_n, step_h, step_w, step_h, step_w, step_c))
        self._plain = padding * self._side + padding
        device = images_NHWC.device
        self._size = (height - 2 * padding, width - 2 * padding)
        self._scale = torch.tensor(processing.scale, device=device).view(1, -1, 1, 1)
        self._bias = torch.tensor(processing.bias, device=device).view(1, -1, 1, 1)

    def __len__(self) -> int:
        return len(self._padded)

    @cached_property
    def digest(self) -> str:
        """The sha256 of all images, in their order."""
        return hashlib.sha256(self._images.cpu().contiguous().numpy().data).hexdigest()

    @property
    def device(self) -> torch.device:
        """Where the images are, and where batches come from."""
        return self._images.device

    def to(self, device: torch.device) -> "ViewedImages":
        """Return the same images on `device`."""
        if device == self.device:
            return self
        return ViewedImages(self._images.to(device), self._views, self._processing, self._reduction)

    def shown(self, index_B: Tensor, column: Column) -> Tensor:
        """Return float32[B, C, H, W]: what `column` shows of the rows, mixed with their partners where it says so."""
        images = self._coloured(index_B, column)
        if column.partners is None or column.share is None:
            return images
        share = column.share[index_B].view(-1, 1, 1, 1)
        return share * images + (1 - share) * self._coloured(column.partners[index_B], column)

    def batch(self, index_B: Tensor, views_B: Tensor | None = None, colour_B: Tensor | None = None) -> Tensor:
        """Return float32[B, C, H, W], normalized, in channels_last layout.

        View v is the crop at row (v mod s^2) // s and column v mod s of the padded image, with s = 2 padding + 1;
        mirrored where v >= s^2. Without `views_B`: the plain images.
        """
        area = self._side * self._side
        views_B = torch.full_like(index_B, self._plain) if views_B is None else views_B
        place = views_B % area
        if not self._reduction and colour_B is None and self._has_kernel:
            crops = Crops(index_B.contiguous(), place // self._side, place % self._side, views_B >= area)
            return show_views(self._padded, self._table, self._size, crops)
        pixels = self._windows[index_B, place // self._side, place % self._side]
        pixels = torch.where((views_B >= area).view(-1, 1, 1, 1), pixels.flip(2), pixels)
        if self._reduction:
            pixels = self._reduction.of(pixels)
        values = pixels.permute(0, 3, 1, 2).to(torch.float32)
        if colour_B is not None:
            contrast, brightness = colour_B.view(-1, 2, 1, 1, 1).unbind(1)
            values = ((values - 127.5) * contrast + 127.5 * brightness).clamp(0, 255)
        return values * self._scale + self._bias

    @cached_property
    def _has_kernel(self) -> bool:
        on_cpu = self.device.type == "cpu" and self._padded.is_contiguous() and self._padded.dtype == torch.uint8
        return on_cpu and find_library() is not None

    @cached_property
    def _table(self) -> Tensor:
        """What each byte of each channel becomes: float32[256, C], to the bit as `batch` computes it."""
        channels = self._padded.shape[3]
        bytes_ = torch.arange(256, dtype=torch.float32).view(256, 1, 1, 1).expand(256, channels, 1, 1)
        return (bytes_ * self._scale + self._bias).reshape(256, channels).contiguous()

    def _coloured(self, index_B: Tensor, column: Column) -> Tensor:
        colour = None if column.colour is None else column.colour[index_B]
        return self.batch(index_B, column.views[index_B], colour)
