"""The parts of a run that freeze differently: usually one; of probe-then-tune two."""

from __future__ import annotations

from dataclasses import dataclass, replace

from detseg.errors import DataError
from detseg.models.freeze import LEVELS
from detseg.options import TrainConfig


@dataclass(frozen=True)
class Phase:
    """Epochs with the same parts frozen, one optimizer and one schedule.

    Attributes:
        config: of the run, with the freezing, rate and last epoch of this phase.
        first_epoch: counted from the run's begin, as ``config.epochs`` is.
        line: what to tell; empty for the only phase.
    """

    config: TrainConfig
    first_epoch: int = 0
    line: str = ""


def phases_of(config: TrainConfig) -> list[Phase]:
    """One phase; or a probe, which trains the heads on a frozen backbone, and the tuning of what ``freeze`` leaves.

    Raises:
        DataError: options that a run of two phases cannot keep.
    """
    probe = config.linear_probe_epochs
    if probe is None:
        return [Phase(config)]
    for name, value in (("patience", config.patience), ("minutes", config.minutes)):
        if value:
            raise DataError(f"--{name} {value:g} does not go with --linear-probe-epochs; give --epochs instead")
    epochs = config.epochs or 1
    assert isinstance(probe, int)  # "half" is resolved with the epochs
    if probe >= epochs:
        raise DataError(
            f"--linear-probe-epochs {probe} of {epochs} leaves none for fine-tuning; give fewer, or more --epochs"
        )
    assert config.lr is not None
    level = config.freeze or "none"
    if config.trainable_layers is None and LEVELS.index(level) >= LEVELS.index("backbone"):
        raise DataError(f"--freeze {level}: after the probe more than the heads must learn; give none or stem")
    return [
        Phase(
            replace(config, freeze="backbone", trainable_layers=None, epochs=probe),
            0,
            f"probe: {probe} epochs of the heads on the frozen backbone",
        ),
        Phase(
            replace(config, lr=config.lr * config.finetune_lr_mult),
            probe,
            f"tune: {epochs - probe} epochs of all that --freeze {level} leaves, at {config.finetune_lr_mult:g} of the rate",
        ),
    ]
