"""Run ``benchmark feeding``: stages of loading, a sweep of worker numbers, and a suggestion."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from detseg.annotations import AnnotationTable
from detseg.annotations.from_options import describe_table, load_table
from detseg.benchmarks.feeding.advice import best_rate, decoded_line, waiting_line, workers_line
from detseg.benchmarks.feeding.stages import LOADED, Clock, Stage, measure_stages, seconds_of
from detseg.benchmarks.feeding.sweep import WorkerRate, sweep
from detseg.datasets import Dataset, data_loader, preset
from detseg.datasets.decoded_images import DecodedImages
from detseg.datasets.loader import collate_fn
from detseg.engine.update import to_device
from detseg.inference.predictor import pick_device
from detseg.models import Model
from detseg.options import FeedingConfig, TrainConfig
from detseg.options.plan import Plan
from detseg.preprocess import Preprocessing
from detseg.reports.table import align
from detseg.runtime.files import free_space, write_json
from detseg.runtime.machine import MachineFacts, describe_machine
from detseg.runtime.reporter import Reporter, silent, terminal
from detseg.training.loaders import GB
from detseg.training.make_plan import make_plan
from detseg.training.new_model import new_model
from detseg.training.step_time import seconds_per_step
from detseg.training.tile_choice import choice_of

STAGES_SHARE = 0.4
"""Share of the time for the stages; the rest is for the sweep."""

DECODERS = ("decode with PIL", "decode with OpenCV")


def feeding(config: FeedingConfig, *, reporter: Reporter | None = None) -> dict[str, Any]:
    """Measure the stages, the model and the numbers of workers; report them and write feeding.json.

    Raises:
        DataError: data or options that cannot work.
    """
    reporter, device = reporter or terminal(), pick_device(config.device)
    start, seconds = time.monotonic(), 60 * config.minutes
    table = load_table(config)
    machine = MachineFacts.of(device)
    plan = make_plan(_training_options(config), table, table, machine)
    model = new_model(table, plan, reporter=silent()).to(device)
    reporter.lines([*describe_table(table), _plan_line(plan, model)])
    few = table.subset(_spread(len(table), config.sample))
    task, augment = plan.model.task, plan.training.augment
    stages = measure_stages(
        few, model.preprocessing, task, augment, deadline=start + STAGES_SHARE * seconds, reporter=reporter
    )
    size, free = decoded_bytes(table, model.preprocessing), free_space(Path.cwd())
    is_cached = size <= config.decoded_limit * GB and (free is None or size <= free // 4)
    with TemporaryDirectory(prefix="detseg-feeding-") as folder:
        decoded = DecodedImages(few, model.preprocessing, folder) if is_cached else None
        dataset = Dataset(
            few if is_cached else table, model.preprocessing, task=task, augment=preset(augment, task),
            decoded=decoded, tiles=choice_of(plan),
        )  # fmt: skip
        if decoded is not None:
            for row in reporter.progress(range(len(few)), "decoding", total=len(few), unit="image"):
                dataset.decode(row)
        batch = plan.training.batch_size
        stages += batch_stages(dataset, model, device, batch)
        rates = sweep(
            dataset, model, device, batch, _worker_numbers(config, machine),
            seconds=max(1.0, start + seconds - time.monotonic()), reporter=reporter,
        )  # fmt: skip
    free_gb = None if free is None else free / GB
    saved, sample = seconds_of(stages, LOADED), seconds_of(stages, ["sample"])
    lines = [
        waiting_line(best_rate(rates), next(stage.per_second for stage in stages if stage.name == "model step")),
        workers_line(rates, machine.default_workers),
        decoded_line(size / GB, config.decoded_limit, free_gb, saved, sample),
    ]
    reporter.lines([*stage_lines(stages), "", *rate_lines(rates, is_cached), "", *lines, describe_machine(device)])
    result = {
        "machine": describe_machine(device),
        "model": plan.model.model,
        "batch_size": batch,
        "stages": [stage.to_dict() for stage in stages],
        "decoders": decoder_ratios(stages),
        "decoded_images_cached": is_cached,
        "decoded_gigabytes": size / GB,
        "workers": [rate.to_dict() for rate in rates],
        "suggested_workers": best_rate(rates).workers,
        "default_workers": machine.default_workers,
        "lines": lines,
    }
    write_json(Path(config.output or "benchmark-feeding") / "feeding.json", result)
    return result


def batch_stages(dataset: Dataset, model: Model, device: torch.device, batch_size: int, turns: int = 5) -> list[Stage]:
    """Time what is done with a batch: collating, copying to the device, a step of the model without the update."""
    samples = [dataset[row % len(dataset)] for row in range(batch_size)]
    clock = Clock()
    for _ in range(turns):
        images, targets = clock.time("collate", lambda: collate_fn(samples))
        clock.time("copy to device", lambda: _copied(images, targets, device))  # noqa: B023
    step = seconds_per_step(model, data_loader(dataset, batch_size), device)
    stages = [*clock.stages(), Stage("model step", step, 1)]
    return [Stage(stage.name, stage.seconds / batch_size, batch_size * stage.images) for stage in stages]


def decoded_bytes(table: AnnotationTable, preprocessing: Preprocessing) -> int:
    """Bytes of all images at the model's input size."""
    sizes = [preprocessing.geometry(record.size_hw, record.orientation).network_hw for record in table]
    return int(3 * np.array(sizes, np.int64).reshape(-1, 2).prod(axis=1).sum())


def decoder_ratios(stages: Sequence[Stage]) -> dict[str, float]:
    """Time of other decoders, which decode at full size, divided by that of "decode" in the same run."""
    ours = seconds_of(stages, ["decode"])
    return {stage.name: stage.seconds / ours for stage in stages if stage.name in DECODERS}


def stage_lines(stages: Sequence[Stage]) -> list[str]:
    """Return the table of stages, and the ratios of the decoders."""
    rows = [
        [stage.name, str(stage.size or ""), f"{1000 * stage.seconds:.3g}", f"{stage.per_second:.4g}", str(stage.images)]
        for stage in stages
    ]
    ratios = [f"{name} at full size: {ratio:.2f} times the time" for name, ratio in decoder_ratios(stages).items()]
    note = [f"{'; '.join(ratios)} of decode, which reduces large JPEGs while decoding"] if ratios else []
    return [*align(rows, ["stage, one core", "pixels", "ms per image", "images per second", "images"]), *note]


def rate_lines(rates: Sequence[WorkerRate], is_cached: bool) -> list[str]:
    """Return the table of worker numbers."""
    rows = [
        [str(rate.workers), f"{rate.loading:.3g}", f"{rate.training:.3g}", f"{rate.waiting:.0%}", str(rate.batches)]
        for rate in rates
    ]
    header = ["workers", "loading, images per second", "training, images per second", "model waits", "batches"]
    when = "with cached decoded images, as in all epochs but the first" if is_cached else "without cached images"
    return [*align(rows, header), f"measured {when}"]


def _plan_line(plan: Plan, model: Model) -> str:
    size = model.preprocessing.min_size
    training = plan.training
    return f"{plan.model.model} at {size} px, batches of {training.batch_size}, augmentation {training.augment}"


def _training_options(config: FeedingConfig) -> TrainConfig:
    names = {item.name for item in fields(TrainConfig)}
    options = {item.name: getattr(config, item.name) for item in fields(config) if item.name in names - {"workers"}}
    return TrainConfig(**options | {"weights": "none", "minutes": None, "output": None})


def _spread(rows: int, number: int) -> list[int]:
    """Return at most ``number`` rows, evenly spread over the table."""
    return np.unique(np.linspace(0, rows - 1, min(rows, number)).round().astype(np.int64)).tolist()


def _worker_numbers(config: FeedingConfig, machine: MachineFacts) -> list[int]:
    """Return the numbers to measure: by default 0, powers of two up to the cores, and the default of ``train``."""
    if config.workers is not None:
        return sorted(set(config.workers))
    powers = [2**power for power in range(5) if 2**power <= machine.cores]
    return sorted({0, *powers, machine.default_workers})


def _copied(images: Any, targets: Any, device: torch.device) -> None:
    to_device(images, targets, device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
