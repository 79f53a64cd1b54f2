"""Build an annotation table from any ``(image, target)`` dataset, to evaluate on it and to inspect it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from detseg.annotations.builder import TableBuilder
from detseg.annotations.table import AnnotationTable
from detseg.boxes import xyxy_to_xywh
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.keypoints import keypoint_schema, unnamed
from detseg.masks import mask_to_rle
from detseg.runtime.reporter import progress
from detseg.structures import RLE


class UserDataset(Protocol):
    """Required interface: ``len`` and an index from 0 (a torch ``Dataset`` or ``Subset``, a list)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def table_from_dataset(dataset: UserDataset, class_map: ClassMap | None = None) -> AnnotationTable:
    """Iterate once over a dataset in torchvision's format and collect everything except the pixels.

    The dataset must not be augmented (evaluation uses unaugmented ground truth). ``image`` is a tensor or array
    [3, H, W], an array [H, W] or [H, W, 3], or a PIL image. ``target`` is a dict with ``labels`` [N] (1..K) and
    ``boxes`` [N, 4] xyxy or ``masks`` [N, H, W] or both, and optionally ``area``, ``iscrowd``, ``ignore``,
    ``difficult`` [N], ``keypoints`` [N, P, 3] and ``image_id``. Records have no file (``media`` is ""): the pixels
    stay in the dataset. Without ``image_id`` images are numbered from 1.

    Args:
        dataset: any object with ``len`` that can be indexed; torch is not required: ``np.asarray`` converts the values.
        class_map: the classes; None: "class 1" up to the largest label.

    Raises:
        DataError: a sample in another format, numbers that are not finite, an unknown label, repeated image ids.
    """
    source = type(dataset).__name__
    samples = []
    for index in progress(range(len(dataset)), f"{source}: annotations"):
        samples.append(_read_sample(dataset[index], f"{source}[{index}]"))
    if class_map is None:
        largest = max((int(sample.columns["labels"].max(initial=0)) for sample in samples), default=0)
        class_map = ClassMap.from_names([f"class {label}" for label in range(1, largest + 1)])
    points = max(
        (sample.columns["keypoints"].shape[1] for sample in samples if "keypoints" in sample.columns), default=0
    )
    schema = keypoint_schema(unnamed(points)) if points else None

    builder = TableBuilder(class_map, "", source=source, keypoint_schema=schema)
    for sample in samples:
        builder.add_image("", sample.size_hw, image_id=sample.image_id)
        for row, label in enumerate(sample.columns["labels"].tolist()):
            instance = {name: column[row] for name, column in sample.columns.items()}
            box = instance.get("boxes")
            area = instance.get("area")
            builder.add_instance(
                None if box is None else xyxy_to_xywh(box),
                label,
                segmentation=None if sample.rles is None else sample.rles[row],
                area=None if area is None else float(area),
                iscrowd=bool(instance.get("iscrowd", False)),
                ignore=bool(instance.get("ignore", False)),
                difficult=bool(instance.get("difficult", False)),
                keypoints=instance.get("keypoints"),
                where=f"{sample.where}, instance {row}",
            )
    return builder.build(keep_all_images=True)  # dataset[i] has them too


@dataclass(frozen=True)
class _Sample:
    """One sample without its pixels; ``columns`` are the per-instance entries of the target, all of one length."""

    where: str
    size_hw: tuple[int, int]
    image_id: int | None
    columns: dict[str, npt.NDArray[Any]]
    rles: list[RLE] | None


_COLUMNS = {  # shape of one row, and dtype
    "labels": ((), np.int64),
    "boxes": ((4,), np.float64),
    "area": ((), np.float64),
    "iscrowd": ((), np.bool_),
    "ignore": ((), np.bool_),
    "difficult": ((), np.bool_),
    "keypoints": ((-1, 3), np.float64),
}


def _read_sample(sample: Any, where: str) -> _Sample:
    if not (isinstance(sample, (tuple, list)) and len(sample) == 2 and isinstance(sample[1], Mapping)):
        raise DataError(
            f"{where}: expected (image, target dict), got {type(sample).__name__}; __getitem__ must return both"
        )
    image, target = sample
    if "labels" not in target or ("boxes" not in target and "masks" not in target):
        raise DataError(f"{where}: the target has {', '.join(map(str, target))}; it needs labels, and boxes or masks")
    box_format = str(getattr(target.get("boxes"), "format", "XYXY")).rpartition(".")[2]
    if box_format != "XYXY":
        raise DataError(f"{where}: boxes are {box_format}, expected XYXY; convert them")
    size_hw = _size_hw(image, where)
    number = len(target["labels"])
    columns: dict[str, npt.NDArray[Any]] = {}
    for name, (shape, dtype) in _COLUMNS.items():
        if name not in target:
            continue
        values = np.asarray(target[name])
        if len(values) != number or (number and values.ndim != 1 + len(shape)):
            raise DataError(
                f"{where}: {name} has shape {list(values.shape)} for {number} labels; "
                "row i of every entry is instance i"
            )
        if number:
            columns[name] = values.astype(dtype)
        elif name == "labels":
            columns[name] = np.zeros(0, np.int64)
    rles = None
    if "masks" in target:
        masks = np.asarray(target["masks"])
        if len(masks) != number or (number and masks.shape[1:] != size_hw):
            raise DataError(
                f"{where}: masks have shape {list(masks.shape)}; for {number} labels and this image "
                f"[{number}, {size_hw[0]}, {size_hw[1]}] is expected"
            )
        rles = [mask_to_rle(mask) for mask in masks]
    image_id = target.get("image_id")
    return _Sample(where, size_hw, None if image_id is None else int(np.asarray(image_id).item()), columns, rles)


def _size_hw(image: Any, where: str) -> tuple[int, int]:
    """Height and width of a tensor or array, channels first or last, or of a PIL image."""
    shape = getattr(image, "shape", None)
    if shape is None and hasattr(image, "size"):
        width, height = image.size
        return height, width
    sides = tuple(int(side) for side in shape or ())
    channels_last = (
        isinstance(image, np.ndarray) and len(sides) == 3 and sides[2] in (1, 3, 4) and sides[0] not in (1, 3)
    )
    if len(sides) not in (2, 3):
        raise DataError(f"{where}: the image has shape {list(sides)}; expected [3, H, W]")
    return (sides[0], sides[1]) if channels_last else (sides[-2], sides[-1])
