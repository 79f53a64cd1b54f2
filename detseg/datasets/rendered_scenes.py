"""Provide rendered scenes as samples, each of them only once."""

from __future__ import annotations

import numpy as np
import torch
import torch.utils.data

from detseg.annotations.from_dataset import table_from_dataset
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.datasets.area import mask_areas
from detseg.datasets.dataset import Sample
from detseg.datasets.sampler import SampleKey
from detseg.datasets.target_checks import check_sample
from detseg.masks import masks_to_boxes
from detseg.preprocess import Preprocessing
from detseg.runtime.seeds import derive_seed
from detseg.short_text import with_classes
from detseg.synthetic.scenes import SHAPE_FAMILIES, draw_scene


class RenderedScenes(torch.utils.data.Dataset[Sample]):
    """``length`` new scenes per epoch, for instance segmentation.

    A sample is a function of (seed, epoch, index). The classes are the shape families.

    Args:
        length: scenes per epoch.
        size_hw: height and width of every image.
        seed: the run's seed, >= 0.
    """

    task = "segment"
    takes_sample_keys = True

    def __init__(self, length: int, size_hw: tuple[int, int], *, seed: int = 0) -> None:
        self.length, self.size_hw, self.seed = length, size_hw, seed
        self.class_map = ClassMap.from_names(SHAPE_FAMILIES)

    def __len__(self) -> int:
        return self.length

    @property
    def preprocessing(self) -> Preprocessing:
        """Changes nothing: scenes are rendered at the input size of the network."""
        return Preprocessing(min_size=min(self.size_hw), max_size=0)

    def ground_truth_table(self) -> AnnotationTable:
        """The instances of epoch 0; renders every scene."""
        return table_from_dataset(self, self.class_map)

    def __repr__(self) -> str:
        size = f"{self.size_hw[1]} x {self.size_hw[0]} pixels"
        return f"RenderedScenes({self.length} scenes per epoch, {size}; {with_classes(self.class_map.names)})"

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """The sample of an index (epoch 0) or a :class:`SampleKey`; same entries as :class:`Dataset` for "segment"."""
        index, epoch, _ = key if isinstance(key, SampleKey) else SampleKey(int(key))
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} does not exist; there are {self.length} scenes per epoch")
        scene = draw_scene(derive_seed(self.seed, epoch, index), self.size_hw)
        target = {
            "boxes": masks_to_boxes(scene.masks),
            "labels": scene.labels,
            "area": mask_areas(scene.masks),
            "iscrowd": np.zeros(len(scene.labels), np.uint8),
            "masks": scene.masks,
        }
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in target.items()}
        tensors["image_id"] = torch.tensor(epoch * self.length + index)
        pixels = torch.from_numpy(np.ascontiguousarray(scene.image.transpose(2, 0, 1)))
        check_sample(pixels, tensors, num_labels=len(self.class_map), where=f"scene {index} of epoch {epoch + 1}")
        return pixels, tensors
