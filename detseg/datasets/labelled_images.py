"""Wrap any ``(image, class)`` dataset, such as torchvision's CIFAR10 and ImageFolder, for classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.utils.data

from detseg.classes import ClassMap
from detseg.datasets.sampler import SampleKey
from detseg.datasets.target_checks import check_sample
from detseg.errors import DataError
from detseg.orientation import orient_image
from detseg.pixel_values import Range, to_8_bits
from detseg.preprocess import Preprocessing
from detseg.runtime.seeds import derive_seed

if TYPE_CHECKING:
    from detseg.datasets.augment import Augment

EXIF_ORIENTATION = 0x0112


class ImageSource(Protocol):
    """A dataset with ``len`` and integer indices from 0 (torchvision's datasets, a ``Subset``, a list)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class LabelledImages(torch.utils.data.Dataset[tuple[torch.Tensor, dict[str, torch.Tensor]]]):
    """Classification samples of a dataset whose items are ``(image, class_index)``, at a network's input size.

    An image is a PIL image of any mode, an array uint8 [H, W] or [H, W, 3], or a tensor [3, H, W] or [1, H, W], uint8
    or float in [0, 1] as ``ToTensor`` returns it. It must not be normalised: the models do that. Other integers and PIL
    images of more than 8 bits need ``preprocessing.value_range``, which is then also that of floats. A PIL image with
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
        original, orientation = _pixels(item[0], where, self.preprocessing.value_range)
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


def _pixels(image: Any, where: str, value_range: Range | None = None) -> tuple[npt.NDArray[np.uint8], int]:
    """uint8 [H, W, 3] RGB as stored, and its EXIF orientation 1..8."""
    orientation = 1
    if hasattr(image, "getexif"):  # a PIL image
        value = image.getexif().get(EXIF_ORIENTATION, 1)
        orientation = value if value in range(1, 9) else 1
        deep = image.mode == "F" or image.mode.startswith("I")  # Pillow would clip it to 255
        image = np.asarray(image if deep else image.convert("RGB"))
    elif isinstance(image, torch.Tensor):
        image = image.permute(1, 2, 0).numpy() if image.ndim == 3 else image.numpy()
    array = np.asarray(image)
    if array.size and array.dtype != np.uint8 and array.dtype.kind in "iuf" and value_range is not None:
        array = to_8_bits(array, value_range, where)
    if np.issubdtype(array.dtype, np.floating) and array.size:
        lowest, highest = float(array.min()), float(array.max())
        if not (lowest >= 0 and highest <= 1):  # so that NaN fails too
            raise DataError(
                f"{where}: values from {lowest:.4g} to {highest:.4g}; floats must be in [0, 1]: remove "
                "Normalize from the dataset, the model normalises"
            )
        array = np.rint(array * 255).astype(np.uint8)
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3) or not array.size:
        raise DataError(
            f"{where}: the image is a {type(image).__name__} of {array.dtype} {list(array.shape)}; use a PIL "
            "image, uint8 [H, W, 3], or a tensor [3, H, W]; more than 8 bits need a model with a value range"
        )
    return np.broadcast_to(array, (*array.shape[:2], 3)).copy() if array.shape[2] == 1 else array, orientation
