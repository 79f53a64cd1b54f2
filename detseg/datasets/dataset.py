"""Records to samples: decode, stand upright, resize once, rasterise, augment, check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.utils.data

from detseg.annotations.table import AnnotationTable, Record
from detseg.boxes import clip_xyxy, scale_xyxy, xywh_to_xyxy
from detseg.datasets.check import check_sample
from detseg.datasets.decoded_images import DecodedImages
from detseg.datasets.sampler import SampleKey
from detseg.errors import DataError
from detseg.images import EncodedImage
from detseg.masks import rasterise_all
from detseg.orientation import orient_image
from detseg.preprocess import Geometry, Preprocessing
from detseg.runtime.seeds import derive_seed
from detseg.tasks import Task

if TYPE_CHECKING:
    from detseg.datasets.augment import Augment

TASKS: tuple[Task, ...] = ("detect", "segment", "keypoints", "classify")

Sample = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""image uint8 [3, H, W] RGB, and its target; see :func:`detseg.datasets.check.check_sample`."""


class Dataset(torch.utils.data.Dataset[Sample]):
    """The samples of a table at a network's size. ``dataset[i]`` always keeps the contract, and is the same each time.

    Crowd and ignored instances are left out: neither is trained on. An object so small that its mask has no pixel at
    the network's size keeps the one pixel under the centre of its box, so that none is lost.

    Args:
        table: what to show; its ``record`` numbers seed the augmentation, so that subsets see the same images.
        preprocessing: the model's; gives the size that images are brought to.
        task: "detect" (boxes), "segment" (boxes around masks, and masks), "keypoints" (boxes and keypoints; an
            instance without any has P points of visibility 0) or "classify" (``class_index``).
        augment: random transforms; None for evaluation.
        seed: the run's seed, >= 0. The augmentation is a function of (seed, epoch, record, occurrence).
        decoded: keeps images that were decoded, for later epochs; made of the same table and preprocessing. The
            samples are the same with and without.

    Raises:
        DataError: the table lacks what the task needs, the preprocessing does not fit it, or ``decoded`` is another
            table's.
    """

    def __init__(
        self,
        table: AnnotationTable,
        preprocessing: Preprocessing,
        *,
        task: Task,
        augment: Augment | None = None,
        seed: int = 0,
        decoded: DecodedImages | None = None,
    ) -> None:
        _check_task(table, preprocessing, task)
        if decoded is not None and (decoded.table is not table or decoded.preprocessing != preprocessing):
            raise DataError(
                f"{table.source or 'the table'}: the decoded images are those of another table or preprocessing; "
                "make them of the dataset's own"
            )
        self.table = table
        self.preprocessing = preprocessing
        self.task = task
        self.augment = augment
        self.seed = seed
        self.decoded = decoded

    def __len__(self) -> int:
        return len(self.table)

    def geometry(self, index: int) -> Geometry:
        """Where the network's pixels of sample ``index`` lie in its upright original (before any augmentation)."""
        record = self.table[index]
        return self.preprocessing.geometry(record.size_hw, record.orientation)

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """The sample of a row (epoch 0), or of a :class:`SampleKey`.

        Raises:
            DataError: the image cannot be decoded or is not what the table says; names the file.
            OSError: the file cannot be opened.
            IndexError: no such row.
        """
        index, epoch, occurrence = key if isinstance(key, SampleKey) else SampleKey(int(key))
        record = self.table[index]
        geometry = self.preprocessing.geometry(record.size_hw, record.orientation)
        image = self._image(index, record, geometry)
        target = self._class_target(record) if self.task == "classify" else self._instance_target(record, geometry)
        if self.augment is not None:
            image, target = self._augmented(self.augment, image, target, record, (epoch, occurrence))
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in target.items()}
        tensors["image_id"] = torch.tensor(record.image_id, dtype=torch.int64)
        if self.task == "classify" and len(record.class_index) == 1:
            tensors["class_index"] = tensors["class_index"][0]
        pixels = torch.from_numpy(_channels_first(image))
        sizes = tuple(len(field) for field in self.table.label_fields)
        check_sample(pixels, tensors, num_labels=len(self.table.class_map), where=record.name, field_sizes=sizes)
        return pixels, tensors

    def _image(self, index: int, record: Record, geometry: Geometry) -> npt.NDArray[np.uint8]:
        """uint8 [h, w, 3] at the network's size, before any augmentation."""
        kept = None if self.decoded is None else self.decoded.get(index)
        if kept is not None:
            return kept if self.augment is None else kept.copy()  # a transform may write into what it is given
        image = self.preprocessing.apply(_image(record, geometry), geometry)
        if self.decoded is not None:
            self.decoded.put(index, image)
        return image

    def _class_target(self, record: Record) -> dict[str, npt.NDArray[Any]]:
        return {"class_index": record.class_index.astype(np.int64)}

    def _instance_target(self, record: Record, geometry: Geometry) -> dict[str, npt.NDArray[Any]]:
        """The instances at the network's size, in numpy."""
        rows = np.flatnonzero(~(record.iscrowd | record.ignore))
        from_hw, to_hw = geometry.original_hw, geometry.resized_hw
        boxes = _scaled_boxes(record.boxes_xywh[rows], from_hw, to_hw)
        scale = (to_hw[0] * to_hw[1]) / (from_hw[0] * from_hw[1])
        target: dict[str, npt.NDArray[Any]] = {
            "boxes": boxes,
            "labels": record.labels[rows].astype(np.int64),
            "area": (record.areas[rows] * scale).astype(np.float32),
            "iscrowd": np.zeros(len(rows), np.uint8),
        }
        if self.task == "segment":
            # every instance has one: looked at when the dataset was built
            outlines = [outline for row in rows if (outline := record.segmentations[row]) is not None]
            masks, inside, areas = rasterise_all(outlines, from_hw, to_hw)
            for i in np.flatnonzero(areas == 0):
                x, y = (boxes[i, :2] + boxes[i, 2:]) / 2
                column, row = min(int(x), to_hw[1] - 1), min(int(y), to_hw[0] - 1)
                masks[i, row, column] = areas[i] = 1
                inside[i] = column, row, column + 1, row + 1
            target |= {"masks": masks, "boxes": inside, "area": areas}
        if self.task == "keypoints":
            assert record.keypoints is not None  # looked at when the dataset was built
            target["keypoints"] = _scaled_keypoints(record.keypoints[rows], from_hw, to_hw)
        return target

    def _augmented(
        self,
        augment: Augment,
        image: npt.NDArray[np.uint8],
        target: dict[str, npt.NDArray[Any]],
        record: Record,
        draw: tuple[int, int],
    ) -> tuple[npt.NDArray[np.uint8], dict[str, npt.NDArray[Any]]]:
        epoch, occurrence = draw
        schema = self.table.keypoint_schema
        try:
            return augment(
                image,
                target,
                derive_seed(self.seed, epoch, record.record, occurrence),
                swaps=schema.swaps if schema else (),
                landscape=bool((self.seed + epoch) % 2),
            )
        except DataError as error:
            raise DataError(f"{record.name}: {error}") from error
        except Exception as error:
            error.add_note(f"while augmenting {record.path} in epoch {epoch}")
            raise


def _check_task(table: AnnotationTable, preprocessing: Preprocessing, task: Task) -> None:
    """DataError unless ``table`` has what ``task`` needs."""
    source = table.source or "the table"
    if task not in TASKS:
        raise DataError(f"task {task!r} is not known; known are {', '.join(TASKS)}")
    if task == "classify":
        single = table.class_index.shape[1] == 1
        rows = np.flatnonzero((table.class_index < 0).all(axis=1)) if single else np.zeros(0, np.int64)
        if len(rows):
            raise DataError(
                f"{source}: {len(rows)} of {len(table)} images have no class, the first is {table[int(rows[0])].name}; "
                "give them one or leave them out"
            )
        return
    if preprocessing.crop:
        raise DataError(f"task {task}: preprocessing crops to {preprocessing.crop} px, which would cut objects; set 0")
    if task == "keypoints" and table.keypoints is None:
        raise DataError(f"{source}: there are no keypoints; use task detect or give the instances some")
    if task == "segment":
        trained = table.trained_rows()
        lacking = trained[~table.segmentation.present()[trained]]
        if len(lacking):
            raise DataError(
                f"{source}: {len(lacking)} of {len(trained)} instances have no mask, the first is annotation "
                f"{table.annotation_id[lacking[0]]}; use task detect or give them masks"
            )


def _image(record: Record, geometry: Geometry) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3]: the upright image, perhaps decoded smaller, but not smaller than the network wants it."""
    if record.member or record.frame >= 0:
        raise DataError(f"{record.name}: images inside archives and videos are not read; extract them to files")
    where = str(record.path)
    encoded = EncodedImage(record.path, name=where)
    stored_hw = encoded.header.size_hw
    if stored_hw != record.stored_hw:
        raise DataError(
            f"{where}: the file is {stored_hw[1]} x {stored_hw[0]} pixels, the table says {record.stored_hw[1]} x "
            f"{record.stored_hw[0]}; it changed since it was read, read the annotations again"
        )
    height, width = geometry.resized_hw
    needed = (height, width) if record.orientation < 5 else (width, height)
    # The table's orientation rules, not the file's: the annotations were turned by it.
    pixels = encoded.decode(upright=False, min_hw=needed)
    return orient_image(pixels, record.orientation)


def _channels_first(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3] -> [3, H, W], contiguous; eight times faster than a transposed copy."""
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(planes))  # into them: they have the size and type that it would make
    return planes


def _scaled_boxes(
    boxes_xywh: npt.NDArray[np.float64], from_hw: tuple[int, int], to_hw: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """float32 [N, 4] xyxy inside the frame, each with some width and height.

    A box that float32 would round to nothing keeps the smallest size that it can hold.
    """
    boxes = clip_xyxy(scale_xyxy(xywh_to_xyxy(boxes_xywh), from_hw, to_hw), to_hw).astype(np.float32)
    ends = np.array([to_hw[1], to_hw[0]], np.float32)
    starts = np.minimum(boxes[:, :2], np.nextafter(ends, np.float32(0)))
    return np.concatenate([starts, np.maximum(boxes[:, 2:], np.nextafter(starts, np.float32(np.inf)))], axis=1)


def _scaled_keypoints(
    keypoints: npt.NDArray[np.float64], from_hw: tuple[int, int], to_hw: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """float32 [N, P, 3]; a point outside the image is (0, 0, 0), not visible."""
    factor = np.array([to_hw[1] / from_hw[1], to_hw[0] / from_hw[0], 1.0])
    scaled = (keypoints * factor).astype(np.float32)
    x, y, visibility = np.moveaxis(scaled, -1, 0)
    inside = (visibility > 0) & (x >= 0) & (x <= to_hw[1]) & (y >= 0) & (y <= to_hw[0])
    return np.where(inside[..., None], scaled, np.float32(0))
