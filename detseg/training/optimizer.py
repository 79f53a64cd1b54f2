"""Build the optimizer and the learning-rate schedule of a run."""

from __future__ import annotations

import torch

from detseg.engine.optim import build_optimizer
from detseg.engine.schedule import Schedule
from detseg.models import Model
from detseg.options.plan import OptimizerPlan, SchedulePlan


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


def build_schedule(plan: SchedulePlan, epochs: int, steps_per_epoch: int) -> Schedule:
    """Build the learning-rate schedule of a phase, in steps."""
    interval = steps_per_epoch * (plan.step_epochs if plan.schedule == "step" else 1)
    return Schedule(
        plan.schedule,
        total_steps=epochs * steps_per_epoch,
        warmup_steps=plan.warmup_steps,
        every=interval,
        milestones=tuple(epoch * steps_per_epoch for epoch in plan.milestones or ()),
        gamma=plan.gamma,
    )
