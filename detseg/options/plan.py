"""The plan of a run: every option with its decided value, and the reasons. Made once, then only read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from detseg.options.data import DataConfig
from detseg.options.running import CacheLocation, CacheOptions, CheckpointOptions, RunOptions
from detseg.options.text import toml_lines
from detseg.options.tiles import TileOptions
from detseg.options.training import (
    FreezeLevel,
    FreezingOptions,
    ModelOptions,
    OptimizerName,
    OptimizerOptions,
    Preset,
    ScheduleOptions,
    SplitOptions,
    TrainConfig,
    TrainingOptions,
)
from detseg.tasks import Task
from detseg.tiling import Tiling, changed_tiling


@dataclass(frozen=True, kw_only=True)
class ModelPlan(ModelOptions):
    """Architecture, starting weights and size. ``image_size`` None: the size and crop of the weights; ``anchor_sizes``
    None: the architecture's or the weights'; ``value_range`` None: that of the weights, else 16 bits; a limit that is
    None is not used by this model."""

    task: Task
    model: str
    weights: str


@dataclass(frozen=True, kw_only=True)
class TilePlan(TileOptions):
    """Tiles. ``tile`` 0: none; the others then have no effect, and ``overlap`` and ``whole_image`` are None."""

    tile: int

    @property
    def tiling(self) -> Tiling | None:
        """How images are cut; None for whole images."""
        return changed_tiling(None, self.tile, self.overlap, self.whole_image)


@dataclass(frozen=True, kw_only=True)
class FreezingPlan(FreezingOptions):
    """Frozen parts: either ``freeze`` or ``trainable_layers`` is set, the other one is None."""

    norm_eval: bool


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(TrainingOptions):
    """Epochs, batches, losses and evaluation. ``minutes`` None: no limit; ``ema`` None: no average."""

    augment: Preset
    epochs: int
    batch_size: int
    eval_epochs: int


@dataclass(frozen=True, kw_only=True)
class OptimizerPlan(OptimizerOptions):
    """Optimizer and learning rates. ``beta2`` None: not used by sgd."""

    optimizer: OptimizerName
    lr: float
    weight_decay: float
    head_lr_mult: float


@dataclass(frozen=True, kw_only=True)
class SchedulePlan(ScheduleOptions):
    """Course of the learning rate. ``milestones`` None: not used; ``linear_probe_epochs`` None: no linear probe."""

    warmup_steps: int
    linear_probe_epochs: int | None


@dataclass(frozen=True, kw_only=True)
class RunPlan(RunOptions):
    """Run folder, device and seed. ``output`` None: numbered below runs/; ``resume`` None: a new run."""

    workers: int
    device: str


@dataclass(frozen=True)
class Phase:
    """Epochs with the same frozen parts, one optimizer and one schedule.

    Attributes:
        first_epoch, epochs: start and end of the phase, counted from the start of the run.
        freeze, trainable_layers: its frozen parts, as in :class:`FreezingPlan`.
        lr: its learning rate.
        cache: where the features of its frozen backbone are cached.
        line: text to report at its start; empty for a single phase.
    """

    first_epoch: int
    epochs: int
    freeze: FreezeLevel | None
    trainable_layers: int | None
    lr: float
    cache: CacheLocation
    line: str = ""


@dataclass(frozen=True)
class Plan:
    """All decisions of a run.

    A value that is None has the meaning that its group states, such as "no limit"; it never means "not decided".

    Attributes:
        phases: one, or a linear probe and the fine-tuning.
        reasons: option -> why it has its value, for those that the user did not give, in the order of the decisions.
        measure_epochs: whether ``training.minutes`` still have to be turned into epochs, which needs the speed of the
            model itself. Until then this is the plan of a run of one epoch, or of ``most_epochs``.
        most_epochs: largest number of epochs that may be measured; None for no limit.
        tile_samples: tiles of an epoch; None for whole images.
    """

    data: DataConfig
    split: SplitOptions
    model: ModelPlan
    tiles: TilePlan
    freezing: FreezingPlan
    training: TrainingPlan
    optimizer: OptimizerPlan
    schedule: SchedulePlan
    checkpoints: CheckpointOptions
    cache: CacheOptions
    run: RunPlan
    phases: tuple[Phase, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    measure_epochs: bool = False
    most_epochs: int | None = None
    tile_samples: int | None = None

    @classmethod
    def of(cls, options: TrainConfig, decided: Mapping[str, Any], reasons: Mapping[str, str]) -> Plan:
        """Return the plan, without phases, of the user's options and the decided values."""
        values = {item.name: getattr(options, item.name) for item in fields(options)} | dict(decided)
        groups = {
            name: group(**{item.name: values[item.name] for item in fields(group)}) for name, group in GROUPS.items()
        }
        return cls(**groups, reasons=dict(reasons))

    def values(self) -> dict[str, Any]:
        """Return every option with its decided value."""
        groups = [getattr(self, name) for name in GROUPS]
        return {item.name: getattr(group, item.name) for group in groups for item in fields(group)}

    def options(self) -> TrainConfig:
        """Return the options that lead to this plan on every machine."""
        return TrainConfig(**self.values())

    def to_toml(self, output: str) -> str:
        """Return the text of config.toml: one table for each group, the reasons as comments.

        Args:
            output: the run folder.
        """
        values = self.values() | {"output": output, "resume": None}
        tables = []
        for name, group in GROUPS.items():
            lines = toml_lines({item.name: values[item.name] for item in fields(group)}, self.reasons)
            tables.append(f"[{name}]\n{lines}")
        return "\n".join(tables)

    def lines(self) -> list[str]:
        """Return one line for each value that was chosen automatically."""
        values = self.values()
        waiting = ("epochs", "warmup_steps", "milestones") if self.measure_epochs else ()
        chosen = {name: reason for name, reason in self.reasons.items() if name not in waiting}
        return [f"  {name} {values[name]} ({reason})" for name, reason in chosen.items()]


GROUPS: dict[str, type] = {
    "data": DataConfig,
    "split": SplitOptions,
    "model": ModelPlan,
    "tiles": TilePlan,
    "freezing": FreezingPlan,
    "training": TrainingPlan,
    "optimizer": OptimizerPlan,
    "schedule": SchedulePlan,
    "checkpoints": CheckpointOptions,
    "cache": CacheOptions,
    "run": RunPlan,
}
"""Name of a group in the plan, which is also its table in config.toml -> its class."""
