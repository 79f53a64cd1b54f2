"""Define the options of a run that do not change what is learned, but its seed: folder, device, caches, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detseg.options.field import MAX_SEED, MAX_WORKERS, option

CacheLocation = Literal["auto", "memory", "disk", "off"]


@dataclass(frozen=True)
class CheckpointOptions:
    """Checkpoints from which a run resumes."""

    checkpoint_every: str = option(
        "10m", "steps (500) or minutes (10m) between checkpoints within an epoch; 0 for none", value="N|Nm"
    )
    keep_checkpoints: int = option(
        2,
        "number of recent checkpoints to keep",
        "the older one is a fallback if the newest is corrupt",
        least=1,
        limit=10_000,
    )


@dataclass(frozen=True)
class CacheOptions:
    """Caches of frozen features and of decoded images."""

    cache: CacheLocation = option(
        "auto",
        "where to cache features of a frozen backbone, so that it runs once for each view of an image",
        "in memory if they fit, else on disk, where other runs can reuse them",
    )
    cached_views: int = option(
        0,
        "randomly augmented views (--augment) to cache besides the original and the flipped image",
        least=0,
        limit=1_000,
    )
    cache_dtype: Literal["float16", "float32"] = option(
        "float16", "number format of cached features", "half the memory; float32 is exact"
    )
    cache_limit: float | None = option(
        None,
        "maximum GB of cached features; the others are computed in every step",
        "half of the free memory; on disk 20, and at most half of the free space",
        above=0,
    )
    cache_dir: str | None = option(
        None, "folder for features cached on disk", "~/.cache/detseg/features", value="FOLDER"
    )
    decoded_limit: float = option(
        4.0,
        "maximum GB of decoded images in a file that the loader workers of the run share, 0 for none",
        "the others are decoded in every epoch",
        least=0,
    )


@dataclass(frozen=True)
class RunOptions:
    """Run folder, device, processes and seed."""

    output: str | None = option(
        None, "run folder to write", "runs/<data>-<model>, numbered if that exists", value="FOLDER", common=True
    )
    resume: str | None = option(None, "run folder to resume from its latest checkpoint", value="FOLDER", common=True)
    workers: int | None = option(
        None,
        "loader worker processes",
        "cores minus one, at most 4; 0 on CPU, which training keeps busy",
        least=0,
        limit=MAX_WORKERS,
    )
    device: str | None = option(None, "cuda, cuda:1 or cpu", "cuda if available", value="DEVICE", common=True)
    coco_lines: bool = option(False, "also print the twelve COCO lines")
    tensorboard: bool = option(False, "write losses, metrics, PR curves, drawings and features for TensorBoard")
    tensorboard_weights: bool = option(False, "also write histograms of the weights (with --tensorboard)")
    figures: bool = option(False, "write figures of the data, the training and the results to <run>/figures")
    check: bool = option(True, "check the annotations at the start, as inspect does, and print what is suspicious")
    seed: int = option(0, "seed of all random numbers", least=0, limit=MAX_SEED)
    replay: str | None = option(
        None, "file of a saved batch whose loss was not finite: print its losses image by image and exit", value="FILE"
    )
