"""Write checkpoint files atomically, check them when they are read, and rotate them."""

from detseg.checkpoints.checkpoint import load, load_checkpoint, save_checkpoint

__all__ = ["load", "load_checkpoint", "save_checkpoint"]
