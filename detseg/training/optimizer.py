"""Build the optimizer of a run from its options."""

from __future__ import annotations

import torch

from detseg.engine.optim import build_optimizer
from detseg.models import Model
from detseg.options.plan import OptimizerPlan


def new_optimizer(model: Model, plan: OptimizerPlan, *, lr: float) -> torch.optim.Optimizer:
    """Build the optimizer for the trainable parameters of ``model``, with the learning rate of a phase."""
    return build_optimizer(
        model,
        name=plan.optimizer,
        lr=lr,
        momentum=plan.momentum,
        weight_decay=plan.weight_decay,
        backbone_lr_mult=plan.backbone_lr_mult,
        head_lr_mult=plan.head_lr_mult,
        beta2=0.999 if plan.beta2 is None else plan.beta2,
    )
