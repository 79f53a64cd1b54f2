"""Train on labelled images, or replay the batch that stopped a run."""

from __future__ import annotations

from detseg.options import TrainConfig
from detseg.runtime.reporter import Reporter, terminal
from detseg.training.failed_step import replay
from detseg.training.fit import fit


def train(config: TrainConfig, *, reporter: Reporter | None = None, started: float | None = None) -> None:
    """Train with the options of ``config``; with ``replay``, report the losses of the saved batch instead.

    Args:
        started: when the command began, in seconds of :func:`time.monotonic`; None for now.
    """
    if config.replay:
        (reporter or terminal()).lines(replay(config.replay))
    else:
        fit(config, reporter=reporter, started=started)
