"""Create the model of a new run, and measure the batch size that fits on a GPU."""

from __future__ import annotations

from dataclasses import replace

import torch

from detseg.annotations import AnnotationTable
from detseg.datasets import Dataset
from detseg.errors import DataError
from detseg.models import Model
from detseg.models.create import create_model
from detseg.models.weights.class_transfer import class_pairs
from detseg.models.weights.starting_weights import StartingWeights
from detseg.options import TrainConfig
from detseg.options.plan import Plan
from detseg.runtime.machine import MachineFacts
from detseg.runtime.reporter import Reporter, silent, terminal
from detseg.runtime.seeds import derive_seed
from detseg.training.batch_size import fitting_batch_size
from detseg.training.make_plan import make_plan
from detseg.training.plan_checks import LIMITS
from detseg.training.run_data import RunContext
from detseg.training.tile_choice import choice_of


def with_batch_size(
    options: TrainConfig,
    table: AnnotationTable,
    train: AnnotationTable,
    device: torch.device,
    context: RunContext,
    weights: StartingWeights | None = None,
) -> TrainConfig:
    """Replace ``--batch-size 0`` by the largest batch size that fits in the memory of this GPU."""
    if options.batch_size != 0:
        return options
    if device.type != "cuda":
        raise DataError("--batch-size 0 measures the memory of a GPU, but there is none; give a number")
    draft = make_plan(replace(options, batch_size=1), table, train, MachineFacts.of(device), weights=weights)
    model = new_model(table, draft, weights, silent()).to(device)
    dataset = Dataset(train, model.preprocessing, task=draft.model.task, tiles=choice_of(draft))
    size, memory_use = fitting_batch_size(model, dataset, device)
    size = int(context.processes.broadcast_bytes(str(size).encode()))
    context.reporter.line(f"batch size {size}: {memory_use}")
    return replace(options, batch_size=size)


def new_model(
    table: AnnotationTable,
    plan: Plan,
    weights: StartingWeights | None = None,
    reporter: Reporter | None = None,
) -> Model:
    """Create the model of a new run; report which weights were loaded and which parts are trainable.

    Args:
        weights: those of the plan if they are open already.
    """
    torch.manual_seed(derive_seed(plan.run.seed))  # random initialization depends on the seed of the run
    planned, reporter = plan.model, reporter or terminal()
    created = create_model(
        planned.model,
        table.class_map,
        weights=weights or planned.weights,
        freeze_level=plan.freezing.freeze,
        trainable_layers=plan.freezing.trainable_layers,
        norm_eval=plan.freezing.norm_eval,
        image_size=planned.image_size,
        **{name: value for name in LIMITS if (value := getattr(planned, name)) is not None},
        anchor_sizes=planned.anchor_sizes,
        keypoints=table.keypoint_schema if planned.task == "keypoints" else None,
        label_fields=table.label_fields,
        class_transfer=class_pairs(planned.class_transfer, table.class_map.names),
        value_range=planned.value_range,
        tiling=plan.tiles.tiling,
    )
    reporter.lines(created.lines)
    if planned.weights == "none":
        reporter.line(
            "training from scratch: no pretrained weights, so expect low accuracy from few images and few epochs"
        )
    return created.model
