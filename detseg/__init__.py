"""Transfer learning for detection and segmentation on small custom data.

Ten names are enough for a notebook: ``read``, ``split``, ``Dataset``, ``data_loader``, ``create_model``,
``train_one_epoch``, ``evaluate``, ``fit``, ``Predictor``, ``draw``. They are imported on first use, so that
``import detseg`` is fast. ``plot_history``, ``plot_pr``, ``plot_confusion``, ``show_samples``, ``show_batch``,
``show_predictions`` and ``show_mistakes`` return figures.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from detseg import old_names
from detseg.version import __version__

if TYPE_CHECKING:
    from detseg.annotations.read import read
    from detseg.annotations.split import split
    from detseg.checkpoints import load
    from detseg.datasets import Dataset, data_loader
    from detseg.engine.evaluate import evaluate
    from detseg.engine.train import train_one_epoch
    from detseg.errors import DataError
    from detseg.inference.predictor import Predictor
    from detseg.models.create import create_model
    from detseg.options import TrainConfig
    from detseg.reports.draw import draw
    from detseg.training.figures import (
        plot_confusion,
        plot_history,
        plot_pr,
        show_batch,
        show_mistakes,
        show_predictions,
        show_samples,
    )
    from detseg.training.fit import fit

__all__ = [
    "DataError",
    "Dataset",
    "Predictor",
    "TrainConfig",
    "__version__",
    "create_model",
    "data_loader",
    "draw",
    "evaluate",
    "fit",
    "load",
    "plot_confusion",
    "plot_history",
    "plot_pr",
    "read",
    "show_batch",
    "show_mistakes",
    "show_predictions",
    "show_samples",
    "split",
    "train_one_epoch",
]

_MODULE_OF = {
    "DataError": "detseg.errors",
    "Dataset": "detseg.datasets",
    "Predictor": "detseg.inference.predictor",
    "TrainConfig": "detseg.options",
    "create_model": "detseg.models.create",
    "data_loader": "detseg.datasets",
    "draw": "detseg.reports.draw",
    "evaluate": "detseg.engine",
    "fit": "detseg.training.fit",
    "load": "detseg.checkpoints",
    "plot_confusion": "detseg.training.figures",
    "plot_history": "detseg.training.figures",
    "plot_pr": "detseg.training.figures",
    "read": "detseg.annotations",
    "show_batch": "detseg.training.figures",
    "show_mistakes": "detseg.training.figures",
    "show_predictions": "detseg.training.figures",
    "show_samples": "detseg.training.figures",
    "split": "detseg.annotations",
    "train_one_epoch": "detseg.engine",
}

old_names.install()


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'detseg' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
