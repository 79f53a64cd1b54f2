"""Train on labelled images, or replay the batch that stopped a run."""

from __future__ import annotations

from detseg.options import TrainConfig
from detseg.training.failed_step import replay
from detseg.training.fit import fit


def train(config: TrainConfig) -> None:
    """Train with the options of ``config``; with ``replay``, print the losses of the saved batch instead."""
    if config.replay:
        print("\n".join(replay(config.replay)))
    else:
        fit(config)
