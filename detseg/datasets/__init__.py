"""Build samples and batches from tables. Augmentation is imported on first use: albumentations needs seconds."""

import importlib
from typing import TYPE_CHECKING, Any

from detseg import old_names
from detseg.datasets.dataset import Dataset
from detseg.datasets.labelled_images import LabelledImages
from detseg.datasets.loader import collate_fn, data_loader
from detseg.datasets.sampler import EpochSampler, SampleKey
from detseg.datasets.target_checks import check_sample
from detseg.datasets.views import Views

if TYPE_CHECKING:
    from detseg.datasets.augment import PRESETS, Augment, fixed_views, preset

__all__ = [
    "PRESETS",
    "Augment",
    "Dataset",
    "EpochSampler",
    "LabelledImages",
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
    return old_names.attribute(__name__, name)
