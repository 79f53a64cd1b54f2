"""Define the options of ``benchmark``: one small config for each comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detseg.old_names import accepts_old_options
from detseg.options.data import DataConfig
from detseg.options.field import MAX_SEED, MAX_WORKERS, check_ranges, option
from detseg.options.running import CacheOptions
from detseg.options.training import FreezeLevel, OptimizerOptions, Preset, ScheduleOptions, SplitOptions
from detseg.tasks import Task

_AS_IN_TRAIN = "as in train"


@dataclass(frozen=True)
class ComparisonOptions(CacheOptions, ScheduleOptions, OptimizerOptions, SplitOptions, DataConfig):
    """Options of comparisons of training runs; those without a value here are chosen as in ``train``."""

    task: Task | None = option(None, "task to train for", _AS_IN_TRAIN, common=True)
    image_size: int | None = option(
        None, "length of the shorter side in pixels", _AS_IN_TRAIN, least=32, limit=16_384, common=True
    )
    rois_per_image: int | None = option(
        None, "RoIs per image in the head's loss", _AS_IN_TRAIN, least=1, limit=1_000_000
    )
    mask_rois_per_image: int | None = option(
        None, "maximum number of RoIs in the mask loss", _AS_IN_TRAIN, least=1, limit=1_000_000
    )
    detections_per_image: int | None = option(
        None, "maximum number of detections", _AS_IN_TRAIN, least=1, limit=1_000_000
    )
    augment: Preset | None = option(None, "augmentation preset", _AS_IN_TRAIN)
    batch_size: int | None = option(None, "images per step", _AS_IN_TRAIN, least=1, limit=100_000, common=True)
    eval_epochs: int | None = option(None, "epochs between two evaluations", _AS_IN_TRAIN, least=1, limit=1_000_000)
    val_loss: bool = option(True, "compute the validation loss at each evaluation")
    seeds: list[int] | None = option(
        None, "one run per seed, such as [0,1]", "[0,1,2]", least=0, limit=MAX_SEED, common=True
    )
    output: str | None = option(None, "folder to write", "named after the comparison", value="FOLDER", common=True)
    workers: int | None = option(None, "loader worker processes", _AS_IN_TRAIN, least=0, limit=MAX_WORKERS)
    device: str | None = option(None, "cuda, cuda:1 or cpu", "cuda if available", value="DEVICE", common=True)
    seed: int = option(0, "seed of the split", least=0, limit=MAX_SEED)


@accepts_old_options
@dataclass(frozen=True)
class BaselineConfig(ComparisonOptions):
    """Options of ``benchmark baseline``."""

    model: str | None = option(
        None, "architecture: fasterrcnn_... with a torchvision backbone", value="NAME", common=True
    )
    weights: str | None = option(
        None, "file with a classification state dict of the backbone, or none", value="FILE", common=True
    )
    freeze: FreezeLevel | None = option(None, "freeze all parts up to this one", _AS_IN_TRAIN, common=True)
    epochs: int | None = option(None, "epochs to train", _AS_IN_TRAIN, least=1, limit=1_000_000, common=True)


@accepts_old_options
@dataclass(frozen=True)
class TransferConfig(ComparisonOptions):
    """Options of ``benchmark transfer``."""

    budgets: list[float] | None = option(
        None, "minutes of training, each for every arm", "[3,20]", above=0, limit=1_000_000, common=True
    )
    arms: str | list[str] | None = option(
        None,
        "comma-separated arms out of scratch, bundled frozen, bundled fine-tuned, imagenet frozen and imagenet "
        "fine-tuned",
        "all, the imagenet ones only with --imagenet",
        common=True,
    )
    bundled: str = option(
        "bundled", "weights of the bundled arms", "those that come with the package", value="NAME|FILE", common=True
    )
    imagenet: str | None = option(
        None, "a classification state dict of MobileNetV2", "no imagenet arms", value="FILE", common=True
    )


@dataclass(frozen=True)
class FeedingConfig(DataConfig):
    """Options of ``benchmark feeding``; those without a value here are chosen as in ``train``, without weights."""

    task: Task | None = option(None, "task to train for", _AS_IN_TRAIN, common=True)
    model: str | None = option(None, "architecture", _AS_IN_TRAIN, value="NAME", common=True)
    image_size: int | None = option(
        None, "length of the shorter side in pixels", _AS_IN_TRAIN, least=32, limit=16_384, common=True
    )
    augment: Preset | None = option(None, "augmentation preset", _AS_IN_TRAIN, common=True)
    freeze: FreezeLevel | None = option(None, "freeze all parts up to this one", "none", common=True)
    batch_size: int | None = option(None, "images per step", _AS_IN_TRAIN, least=1, limit=100_000, common=True)
    sample: int = option(64, "number of images to measure the stages with", least=1, limit=1_000_000, common=True)
    minutes: float = option(2.0, "time of the measurement", above=0, limit=1_000_000, common=True)
    workers: list[int] | None = option(
        None,
        "numbers of loader workers to measure, such as [0,2,4]",
        "0, powers of two up to the number of cores, and the default of train",
        least=0,
        limit=MAX_WORKERS,
        common=True,
    )
    decoded_limit: float = option(
        4.0, "maximum GB of decoded images that a run caches, 0 for none", _AS_IN_TRAIN, least=0
    )
    output: str | None = option(None, "folder to write", "benchmark-feeding", value="FOLDER", common=True)
    device: str | None = option(None, "cuda, cuda:1 or cpu", "cuda if available", value="DEVICE", common=True)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class SpeedConfig:
    """Options of the comparisons of speed, which generate their own data."""

    what: Literal[
        "frozen", "step", "evaluate", "predict", "loader", "video", "index", "inspect", "archives", "serve", "all"
    ] = option("all", "part whose speed is compared with its baseline")
    output: str | None = option(None, "folder to write", "benchmark-speed", value="FOLDER", common=True)
    device: str | None = option(None, "cuda, cuda:1 or cpu", "cuda if available", value="DEVICE", common=True)

    def __post_init__(self) -> None:
        check_ranges(self)
