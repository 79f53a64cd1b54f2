"""The loop: train and evaluate. Everything it works on comes as an argument."""

from detseg.engine.evaluate import evaluate, validation_loss
from detseg.engine.train import train_one_epoch

__all__ = ["evaluate", "train_one_epoch", "validation_loss"]
