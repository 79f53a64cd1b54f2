"""Plan a pretraining on rendered scenes, and create its model."""

from __future__ import annotations

from dataclasses import replace

import torch

from detseg.datasets.rendered_scenes import RenderedScenes
from detseg.models import Model, build_model, describe, load_weights
from detseg.models.build import architecture_of
from detseg.models.weights.starting_weights import StartingWeights
from detseg.options import PretrainConfig, TrainConfig
from detseg.options.plan import Plan
from detseg.runtime.reporter import Reporter
from detseg.runtime.seeds import derive_seed
from detseg.training.phases import phases_of

ANCHOR_SIZES = ((12,), (24,), (48,), (96,), (192,))
"""One octave apart, from the smallest shapes of a scene: images of 160 to 500 pixels contain smaller objects than
torchvision's 800."""
WARMUP_STEPS = 200


def scenes_plan(config: PretrainConfig, device: str, world: int) -> Plan:
    """Return the plan of a pretraining on rendered scenes, which needs no other data.

    Args:
        world: number of training processes, which share the batch.
    """
    options = TrainConfig(
        task=architecture_of(config.model).task,
        model=config.model,
        weights=config.weights,
        freeze="none",
        norm_eval=False,
        image_size=config.image_size,
        rois_per_image=config.rois_per_image,
        mask_rois_per_image=config.mask_rois_per_image,
        augment="none",
        epochs=config.epochs,
        eval_epochs=config.eval_epochs,
        val_loss=False,
        batch_size=config.batch_size // world,
        optimizer="adamw",
        lr=config.lr,
        weight_decay=0.05,
        head_lr_mult=1.0,
        warmup_steps=min(WARMUP_STEPS, config.epochs * config.epoch_steps // 10),
        cache="off",
        output=config.output,
        resume=config.resume,
        workers=config.workers,
        device=device,
        seed=derive_seed(config.seed, 0),
    )
    plan = Plan.of(options, {}, {})
    return replace(plan, phases=phases_of(plan))


def new_pretraining_model(config: PretrainConfig, weights: StartingWeights, reporter: Reporter) -> Model:
    """Create the model of a new pretraining; report which weights were loaded."""
    torch.manual_seed(derive_seed(config.seed))
    description = describe(
        config.model,
        RenderedScenes(0, (1, 1)).class_map,
        weights=weights,
        rois_per_image=config.rois_per_image,
        mask_rois_per_image=config.mask_rois_per_image,
        anchor_sizes=ANCHOR_SIZES if config.weights in ("none", "imagenet") else None,
    )
    model = build_model(description)
    reporter.lines(load_weights(model, weights).lines())
    return model.to(memory_format=torch.channels_last)
