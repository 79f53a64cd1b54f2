"""Count the batches of training and evaluation that are left of a run, for the time that is left."""

from __future__ import annotations

from detseg.checkpoints.checkpoint import Position
from detseg.options.plan import Phase, Plan


def training_part(phase: Phase) -> str:
    """Return the part of the run's progress that the batches of a phase belong to: each phase has its own speed."""
    return f"training from epoch {phase.first_epoch + 1}"


def remaining_work(plan: Plan, position: Position, train: int, val: int, test: int) -> dict[str, int]:
    """Return the batches that are left of each part of the run.

    Args:
        position: where the run is.
        train: batches of an epoch.
        val: batches of an evaluation; 0 without one.
        test: batches of the test split; 0 without one.
    """
    work: dict[str, int] = {}
    evaluations = 0
    for phase in plan.phases:
        epochs = range(max(phase.first_epoch, position.epoch), phase.epochs)
        started = position.micro_batches if position.epoch in epochs else 0
        work[training_part(phase)] = len(epochs) * train - started
        due = (epoch + 1 == phase.epochs or (epoch + 1) % plan.training.eval_epochs == 0 for epoch in epochs)
        evaluations += sum(due)
    work["evaluate"] = evaluations * val + test
    work["validation loss"] = evaluations * val if plan.training.val_loss else 0
    return work
