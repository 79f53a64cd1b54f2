"""The parts of a run that freeze differently: usually one; of probe-then-tune two."""

from __future__ import annotations

from dataclasses import dataclass, replace

from detseg.errors import DataError
from detseg.models.freeze import LEVELS
from detseg.options import TrainConfig

PROBE_AND_TUNE = "probe-then-tune"


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
    """One phase; or a probe, which trains the heads on a frozen body, and the tuning of what ``freeze`` leaves.

    Raises:
        DataError: options that a run of two phases cannot keep.
    """
    if config.recipe != PROBE_AND_TUNE:
        if config.probe_epochs is not None:
            raise DataError(f"--probe-epochs {config.probe_epochs} belongs to --recipe {PROBE_AND_TUNE}; give both")
        return [Phase(config)]
    for name, value in (("patience", config.patience), ("minutes", config.minutes)):
        if value:
            raise DataError(f"--{name} {value:g} does not go with --recipe {PROBE_AND_TUNE}; give its two --epochs")
    epochs, probe = config.epochs or 1, config.probe_epochs or 1
    if probe >= epochs:
        raise DataError(f"--probe-epochs {probe} of {epochs} leaves none to tune; give fewer, or more --epochs")
    assert config.lr is not None
    level = config.freeze or "none"
    if config.trainable_layers is None and LEVELS.index(level) >= LEVELS.index("body"):
        raise DataError(f"--freeze {level}: after the probe more than the heads must learn; give none or stem")
    return [
        Phase(
            replace(config, freeze="body", trainable_layers=None, epochs=probe),
            0,
            f"probe: {probe} epochs of the heads on the frozen body",
        ),
        Phase(
            replace(config, lr=config.lr * config.tune_lr),
            probe,
            f"tune: {epochs - probe} epochs of all that --freeze {level} leaves, at {config.tune_lr:g} of the rate",
        ),
    ]
