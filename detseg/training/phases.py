"""Divide a run into phases with different frozen parts: usually one; two with a linear probe."""

from __future__ import annotations

from dataclasses import dataclass, replace

from detseg.errors import DataError
from detseg.models.freeze import LEVELS
from detseg.options import TrainConfig


@dataclass(frozen=True)
class Phase:
    """Epochs with the same frozen parts, one optimizer and one schedule.

    Attributes:
        config: options of the run, with the freezing, learning rate and last epoch of this phase.
        first_epoch: counted from the start of the run, as ``config.epochs`` is.
        line: text to print at its start; empty for a single phase.
    """

    config: TrainConfig
    first_epoch: int = 0
    line: str = ""


def phases_of(config: TrainConfig) -> list[Phase]:
    """Return one phase; or a linear probe (the heads on a frozen backbone) and the fine-tuning of all that ``freeze``
    leaves trainable.

    Raises:
        DataError: options that do not work in a run of two phases.
    """
    probe = config.linear_probe_epochs
    if probe is None:
        return [Phase(config)]
    for name, value in (("patience", config.patience), ("minutes", config.minutes)):
        if value:
            raise DataError(f"--{name} {value:g} does not work with --linear-probe-epochs; give --epochs instead")
    epochs = config.epochs or 1
    assert isinstance(probe, int)  # "half" is resolved with the epochs
    if probe >= epochs:
        raise DataError(
            f"--linear-probe-epochs {probe} of {epochs} leaves none for fine-tuning; give fewer, or more --epochs"
        )
    assert config.lr is not None
    level = config.freeze or "none"
    if config.trainable_layers is None and LEVELS.index(level) >= LEVELS.index("backbone"):
        raise DataError(
            f"--freeze {level}: after the linear probe more than the heads must be trainable; give none or stem"
        )
    return [
        Phase(
            replace(config, freeze="backbone", trainable_layers=None, epochs=probe),
            0,
            f"linear probe: {probe} epochs of the heads on the frozen backbone",
        ),
        Phase(
            replace(config, lr=config.lr * config.finetune_lr_mult),
            probe,
            f"fine-tuning: {epochs - probe} epochs of all parts that --freeze {level} leaves trainable, at "
            f"{config.finetune_lr_mult:g} times the learning rate",
        ),
    ]
