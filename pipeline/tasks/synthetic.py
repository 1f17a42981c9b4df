"""Synthesized images in the place of training images. Rule: choices and the gate still use real ones."""

from dataclasses import replace

import safetensors
import safetensors.numpy

from pipeline.artifacts import SyntheticImages
from pipeline.errors import DataError
from pipeline.tasks.dataset import Dataset, Split


def dataset_of(synthetic: SyntheticImages, dataset: Dataset) -> Dataset:
    """Return `dataset` with the synthesized images as its training split, and nothing else changed.

    Raises:
        DataError: the file is damaged, or its images or classes are not the data set's.
    """
    shape = dataset.validation.images.shape[1:]
    if synthetic.image_shape != shape or len(synthetic.images_per_class) != len(dataset.classes):
        raise DataError(
            f"{synthetic.path}: expected synthesized images of the data's shape {shape} and {len(dataset.classes)} "
            f"classes; got {synthetic.image_shape} and {len(synthetic.images_per_class)} classes. Synthesize them from "
            "a teacher of this task"
        )
    try:
        tensors = safetensors.numpy.load_file(synthetic.path)
        train = Split(tensors["images"], tensors["labels"])
    except (safetensors.SafetensorError, OSError, KeyError) as error:
        raise DataError(
            f"{synthetic.path}: expected a safetensors file with images and labels; got {error}; synthesize them again"
        ) from error
    return replace(dataset, train=train)
