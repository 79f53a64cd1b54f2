"""Tables to batches. Augmentation is loaded when it is first asked for: albumentations takes seconds to import."""

import importlib
from typing import TYPE_CHECKING, Any

from detseg.datasets.check import check_sample
from detseg.datasets.dataset import Dataset
from detseg.datasets.labelled_images import LabelledPictures
from detseg.datasets.loader import collate_fn, data_loader
from detseg.datasets.sampler import EpochSampler, SampleKey
from detseg.datasets.views import Views

if TYPE_CHECKING:
    from detseg.datasets.augment import PRESETS, Augment, fixed_views, preset

__all__ = [
    "PRESETS",
    "Augment",
    "Dataset",
    "EpochSampler",
    "LabelledPictures",
    "SampleKey",
    "Views",
    "check_sample",
    "collate_fn",
    "data_loader",
    "fixed_views",
    "preset",
]


def __getattr__(name: str) -> Any:
    if name in ("PRESETS", "Augment", "fixed_views", "preset"):
        return getattr(importlib.import_module("detseg.datasets.augment"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
