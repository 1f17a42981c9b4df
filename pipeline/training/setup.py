"""What a fit runs on: the device or devices, and the optimizer."""

import logging
import os
from collections.abc import Iterable

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.training.schedule import TrainingSchedule


def make_fabric(schedule: TrainingSchedule) -> Fabric:
    """Return a launched Fabric: one device, or what torchrun set up."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)  # precision is the recipe's
    fabric = Fabric(
        accelerator="auto",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=world_size // int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        strategy="ddp" if world_size > 1 else "auto",
        precision=schedule.precision,
    )
    fabric.launch()
    return fabric


def make_optimizer(modules: Iterable[nn.Module], schedule: TrainingSchedule) -> torch.optim.Optimizer:
    """Return one optimizer of all modules; weight decay only on tensors of two or more dimensions."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate = schedule.learning_rate
    if schedule.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(schedule.momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr=rate, momentum=schedule.momentum, nesterov=schedule.momentum > 0, fused=True)


def make_average(model: nn.Module, schedule: TrainingSchedule) -> AveragedModel | None:
    """Return the moving average of the model's weights and buffers, where the schedule wants one."""
    if schedule.ema_decay is None:
        return None
    average_of = get_ema_multi_avg_fn(schedule.ema_decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=average_of, use_buffers=True)
