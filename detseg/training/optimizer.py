"""Build the optimizer of a run from its options."""

from __future__ import annotations

import torch

from detseg.engine.optim import build_optimizer
from detseg.models import Model
from detseg.options import TrainConfig


def new_optimizer(model: Model, config: TrainConfig, *, lr_factor: float = 1.0) -> torch.optim.Optimizer:
    """Build the optimizer for the trainable parameters of ``model`` from resolved options; ``lr_factor`` scales all
    learning rates."""
    assert config.lr is not None
    return build_optimizer(
        model,
        name=config.optimizer or "sgd",
        lr=lr_factor * config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay or 0.0,
        backbone_lr_mult=config.backbone_lr_mult,
        head_lr_mult=config.head_lr_mult or 1.0,
        beta2=config.beta2 or 0.999,
    )
