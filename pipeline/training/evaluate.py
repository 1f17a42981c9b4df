"""Logits of a torch model, in float32 with autocast off: what accuracies on the host are counted from."""

import numpy as np
import torch
from torch import nn

from pipeline.tasks.dataset import Split
from targets.processing import Processing

EVALUATION_BATCH = 250


@torch.inference_mode()
def evaluate_logits(model: nn.Module, split: Split, processing: Processing) -> np.ndarray:
    """Return float32[N, K] of the split's images."""
    was_training = model.training
    device = next(model.parameters()).device
    model.eval()
    logits = []
    for start in range(0, len(split), EVALUATION_BATCH):
        images = torch.from_numpy(processing.preprocess(split.images[start : start + EVALUATION_BATCH])).to(device)
        logits.append(model(images.contiguous(memory_format=torch.channels_last)).float().cpu().numpy())
    model.train(was_training)
    return np.concatenate(logits)


def accuracy_of(model: nn.Module, split: Split, processing: Processing) -> float:
    """Return the share of images whose largest logit is the label's."""
    return float((evaluate_logits(model, split, processing).argmax(axis=1) == split.labels).mean())
