"""The loop: train, evaluate, save. Everything it works on comes as an argument."""

from detseg.engine.checkpoint import load, load_checkpoint, save_checkpoint
from detseg.engine.evaluate import evaluate, validation_loss
from detseg.engine.train import train_one_epoch

__all__ = ["evaluate", "load", "load_checkpoint", "save_checkpoint", "train_one_epoch", "validation_loss"]
