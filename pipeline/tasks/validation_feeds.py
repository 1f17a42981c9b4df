"""The validation cut as samples of an exported model: what a search calibrates and judges on, never the test set."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from calibration.samples import Choice, choose_samples
from pipeline.tasks import AnyTask
from pipeline.tasks.dataset import Split
from targets.target import Arrays


@dataclass(frozen=True)
class ValidationFeeds:
    """Images of the cut, normalized as the model takes them."""

    task: AnyTask
    input: str
    """Name of the model's only input, float32 (1, C, H, W)."""
    num_samples: int
    choice: Choice
    """`diverse` is taken as `balanced` here: it needs the logits of a network."""
    seed: int

    def __len__(self) -> int:
        return len(self._split)

    def sample(self, index: int) -> Arrays:
        """Return one image."""
        return {self.input: self.task.normalization.processing().preprocess(self._split.images[index : index + 1])}

    def take(self, indices: Sequence[int]) -> "ValidationFeeds":
        """Return the first ones: choices are orders."""
        return ValidationFeeds(self.task, self.input, len(indices), self.choice, self.seed)

    def all(self) -> Arrays:
        """Return every image, samples on the first axis."""
        return {self.input: self.task.normalization.processing().preprocess(self._split.images)}

    @property
    def labels(self) -> np.ndarray:
        """Return the class of each image, int64."""
        return self._split.labels

    @cached_property
    def _split(self) -> Split:
        cut = self.task.load().validation
        choice: Choice = "balanced" if self.choice == "diverse" else self.choice
        rows = choose_samples(choice, self.num_samples, len(cut), seed=self.seed, labels=cut.labels)
        return cut.take(rows)
