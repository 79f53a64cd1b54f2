"""Wrap any ``(image, class)`` dataset, such as torchvision's CIFAR10 and ImageFolder, for classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.utils.data

from detseg.annotations.builder import TableBuilder
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.datasets.sampler import SampleKey
from detseg.datasets.target_checks import check_sample
from detseg.errors import DataError
from detseg.orientation import orient_image
from detseg.pixels import to_pixels
from detseg.preprocess import Preprocessing
from detseg.runtime.seeds import derive_seed
from detseg.short_text import counted, with_classes

if TYPE_CHECKING:
    from detseg.datasets.augment import Augment


class ImageSource(Protocol):
    """A dataset with ``len`` and integer indices from 0 (torchvision's datasets, a ``Subset``, a list)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class LabelledImages(torch.utils.data.Dataset[tuple[torch.Tensor, dict[str, torch.Tensor]]]):
    """Classification samples of a dataset whose items are ``(image, class_index)``, at a network's input size.

    An image is a PIL image, an array [H, W, 3] or [H, W], or a tensor [3, H, W] or [1, H, W], uint8 or float in [0, 1]
    as ``ToTensor`` returns it; values of other types are scaled by ``preprocessing.value_range``, which is then also
    that of floats. See :func:`detseg.pixels.to_pixels`. It must not be normalised: the models do that. A PIL image with
    an EXIF orientation is rotated upright if ``preprocessing.apply_exif`` is set. ``image_id`` is the index.

    Args:
        source: the dataset; without random transforms, so that evaluation gets every image unchanged.
        preprocessing: the model's.
        classes: the K class names; None for those of the source (its ``classes``, or those of a ``Subset``'s dataset).
        augment: random transforms for training; a function of (seed, epoch, index, occurrence).
        seed: the run's seed, >= 0.

    Raises:
        DataError: the source has no class names.
    """

    task = "classify"
    takes_sample_keys = True

    def __init__(
        self,
        source: ImageSource,
        preprocessing: Preprocessing,
        *,
        classes: ClassMap | Sequence[str] | None = None,
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        names = _classes_of(source) if classes is None else classes
        self.class_map = names if isinstance(names, ClassMap) else ClassMap.from_names(list(names))
        self.source = source
        self.preprocessing = preprocessing
        self.augment = augment
        self.seed = seed
        self._name = type(source).__name__

    def __len__(self) -> int:
        return len(self.source)

    def ground_truth_table(self) -> AnnotationTable:
        """The class names, without images: the classes are in the samples, and the images need not be read."""
        return TableBuilder(self.class_map, "", source=self._name).build()

    def __repr__(self) -> str:
        augment = "" if self.augment is None else ", augmented"
        images = f"{counted(len(self), 'image')} of {self._name}"
        return f"LabelledImages({images}{augment}; {with_classes(self.class_map.names)})"

    def __getitem__(self, key: int | SampleKey) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The sample of an index (epoch 0), or of a :class:`SampleKey`: uint8 [3, H, W], and a target with
        ``class_index`` int64 [] in 0..K-1 and ``image_id``.

        Raises:
            DataError: the item has an unexpected type or value; the message contains its index.
            IndexError: no such item.
        """
        index, epoch, occurrence = key if isinstance(key, SampleKey) else SampleKey(int(key))
        if not 0 <= index < len(self):
            raise IndexError(f"{self._name} has {len(self)} items, so index {index} does not exist")
        where = f"{self._name}[{index}]"
        item = self.source[index]
        if not (isinstance(item, (tuple, list)) and len(item) == 2):
            raise DataError(f"{where}: expected (image, class), got {type(item).__name__}; return a pair")
        original, orientation = to_pixels(item[0], where, self.preprocessing.value_range)
        if self.preprocessing.apply_exif:
            original = orient_image(original, orientation)
        geometry = self.preprocessing.geometry((original.shape[0], original.shape[1]))
        image = self.preprocessing.apply(original, geometry)
        if self.augment is not None:
            image, _ = self.augment(image, {}, derive_seed(self.seed, epoch, index, occurrence))
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        target = {"class_index": torch.tensor(_class_index(item[1], where)), "image_id": torch.tensor(index)}
        check_sample(pixels, target, num_labels=len(self.class_map), where=where)
        return pixels, target


def _classes_of(source: Any) -> Sequence[str]:
    dataset = source
    while dataset is not None:
        names = getattr(dataset, "classes", None)
        if names is not None:
            return [str(name) for name in names]
        dataset = getattr(dataset, "dataset", None)
    raise DataError(f"{type(source).__name__} has no classes; specify them: LabelledImages(..., classes=[...])")


def _class_index(value: Any, where: str) -> int:
    number = np.asarray(value)
    if number.size != 1 or not np.issubdtype(number.dtype, np.integer):
        raise DataError(f"{where}: the class is {value!r}; it must be an integer from 0")
    return int(number.reshape(-1)[0])
