"""Run a model of a checkpoint with torch."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from detseg.checkpoints.checkpoint import load
from detseg.inference.backend import Described, NetworkOutput


class TorchBackend:
    """As :class:`~detseg.inference.backend.Backend`; images of equal padded size share a batch.

    Attributes:
        model: in eval mode.
    """

    def __init__(self, run: str | os.PathLike[str] | torch.nn.Module, device: torch.device) -> None:
        """``run``: a run folder (its best checkpoint is loaded), a checkpoint file, or a detseg model."""
        self.device = device
        self.model = (run.eval() if isinstance(run, torch.nn.Module) else load(run)).to(device)

    @property
    def description(self) -> Described:
        description: Described = self.model.description  # type: ignore[assignment]
        return description

    def __call__(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[NetworkOutput]:
        tensors = [
            torch.from_numpy(np.require(pixels, requirements="W")).permute(2, 0, 1).to(self.device) for pixels in images
        ]
        with torch.inference_mode():
            outputs: list[NetworkOutput] = self.model(tensors)
        return outputs
