"""Checkpoint files: written whole, read with a check, rotated."""

from detseg.checkpoints.checkpoint import load, load_checkpoint, save_checkpoint

__all__ = ["load", "load_checkpoint", "save_checkpoint"]
