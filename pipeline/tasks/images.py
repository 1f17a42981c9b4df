"""Image files: which they are, and how one becomes pixels of a wanted size."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.errors import DataError

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}


def decode_image(path: Path, height: int, width: int, channels: int) -> np.ndarray:
    """Return uint8[height, width, channels]: resized until both sides cover the wanted ones, then cropped centrally.

    Raises:
        DataError: the file is no image, or a broken one.
    """
    try:
        with Image.open(path) as image:
            pixels = image.convert("RGB" if channels == 3 else "L")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: expected an image; got {error}. Remove or replace the file") from error
    scale = max(width / pixels.width, height / pixels.height)
    resized_width, resized_height = max(width, round(pixels.width * scale)), max(height, round(pixels.height * scale))
    left, top = (resized_width - width) // 2, (resized_height - height) // 2
    pixels = pixels.resize((resized_width, resized_height), Image.Resampling.BILINEAR)
    pixels = pixels.crop((left, top, left + width, top + height))
    return np.asarray(pixels).reshape(height, width, channels)
