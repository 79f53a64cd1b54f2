"""Divide a run into phases with different frozen parts: usually one; two with a linear probe."""

from __future__ import annotations

from detseg.errors import DataError
from detseg.models.freeze import LEVELS
from detseg.options.plan import Phase, Plan


def phases_of(plan: Plan) -> tuple[Phase, ...]:
    """Return one phase; or a linear probe (the heads on a frozen backbone) and the fine-tuning of all that ``freeze``
    leaves trainable.

    Raises:
        DataError: options that do not work in a run of two phases.
    """
    probe, training, schedule = plan.schedule.linear_probe_epochs, plan.training, plan.schedule
    level, layers, cache = plan.freezing.freeze, plan.freezing.trainable_layers, plan.cache.cache
    epochs, lr = training.epochs, plan.optimizer.lr
    if probe is None:
        return (Phase(0, epochs, level, layers, lr, cache),)
    for name, value in (("patience", training.patience), ("minutes", training.minutes)):
        if value:
            raise DataError(f"--{name} {value:g} does not work with --linear-probe-epochs; give --epochs instead")
    if probe >= epochs:
        raise DataError(
            f"--linear-probe-epochs {probe} of {epochs} leaves none for fine-tuning; give fewer, or more --epochs"
        )
    if layers is None and LEVELS.index(level or "none") >= LEVELS.index("backbone"):
        raise DataError(
            f"--freeze {level}: after the linear probe more than the heads must be trainable; give none or stem"
        )
    factor = schedule.finetune_lr_mult
    return (
        Phase(
            0, probe, "backbone", None, lr, cache, f"linear probe: {probe} epochs of the heads on the frozen backbone"
        ),
        Phase(
            probe,
            epochs,
            level,
            layers,
            lr * factor,
            cache,
            f"fine-tuning: {epochs - probe} epochs of all parts that --freeze {level or 'none'} leaves trainable, at "
            f"{factor:g} times the learning rate",
        ),
    )
