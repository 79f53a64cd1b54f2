"""Train and evaluate: the loops. Everything they use is passed as an argument."""

from typing import Any

from detseg import old_names
from detseg.engine.ema import Ema
from detseg.engine.evaluate import evaluate, validation_loss
from detseg.engine.precision import Precision
from detseg.engine.train import train_one_epoch

__all__ = ["Ema", "Precision", "evaluate", "train_one_epoch", "validation_loss"]


def __getattr__(name: str) -> Any:
    return old_names.attribute(__name__, name)
