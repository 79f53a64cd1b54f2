"""Build samples from records: decode, rotate upright, resize once, cut into tiles, rasterize, augment, check."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.utils.data

from detseg.annotations.instance_name import instance_name
from detseg.annotations.table import AnnotationTable, Record
from detseg.boxes import clip_xyxy, scale_xyxy, xywh_to_xyxy
from detseg.datasets.decoded_images import DecodedImages
from detseg.datasets.sampler import SampleKey
from detseg.datasets.target_checks import check_sample
from detseg.datasets.tile_samples import ALL_TILES, TileChoice, TileSamples
from detseg.errors import DataError
from detseg.images import EncodedImage
from detseg.masks import rasterize_window
from detseg.media.archive import OpenedArchives
from detseg.media.video_files import split_frame
from detseg.orientation import orient_image
from detseg.pixel_values import Range
from detseg.preprocess import Geometry, Preprocessing
from detseg.runtime.seeds import derive_seed
from detseg.short_text import counted, with_classes
from detseg.tasks import Task

if TYPE_CHECKING:
    from detseg.datasets.augment import Augment

TASKS: tuple[Task, ...] = ("detect", "segment", "keypoints", "classify")

Sample = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""image uint8 [3, H, W] RGB, and its target; see :func:`detseg.datasets.target_checks.check_sample`."""


class Dataset(torch.utils.data.Dataset[Sample]):
    """The samples of a table at a network's input size. ``dataset[i]`` is checked and is the same at each call.

    Crowd and ignored instances are excluded: they are not used for training. An object so small that its mask has no
    pixel at the network's input size gets the pixel under the centre of its box, so that no object is lost.

    If the preprocessing has a tiling, the samples are the views of each image in order (see
    :meth:`~detseg.preprocess.Preprocessing.views`), and ``target["tile"]`` int64 [] is the number of the view. An
    object is clipped to its tile; it is ignored, as an ignored instance is, where the tile shows too little of it.

    Args:
        table: the records; their ``record`` numbers seed the augmentation, so that subsets get the same images.
        preprocessing: the model's; defines the size that images are resized to, and the value range of those with
            more than 8 bits per channel. The first image that this range does not suit is reported by a warning.
        task: "detect" (boxes), "segment" (boxes around masks, and masks), "keypoints" (boxes and keypoints; an
            instance without keypoints has P points of visibility 0) or "classify" (``class_index``).
        augment: random transforms; None for evaluation.
        seed: the run's seed, >= 0. The augmentation is a function of (seed, epoch, record, occurrence).
        decoded: cache of decoded images for later epochs, for the same table and preprocessing. The samples are the
            same with and without it.
        tiles: which objects and tiles are used, if there are tiles; all of them by default.
        echoed: whether consecutive samples are often of the same image, which is then decoded once for them; see
            :class:`~detseg.datasets.echo.EchoLoader`.

    Raises:
        DataError: the table lacks data that the task needs, the preprocessing does not suit the task, or ``decoded``
            belongs to another table.
    """

    takes_sample_keys = True

    def __init__(
        self,
        table: AnnotationTable,
        preprocessing: Preprocessing,
        *,
        task: Task,
        augment: Augment | None = None,
        seed: int = 0,
        decoded: DecodedImages | None = None,
        tiles: TileChoice = ALL_TILES,
        echoed: bool = False,
    ) -> None:
        _check_task(table, preprocessing, task)
        if decoded is not None and (decoded.table is not table or decoded.preprocessing != preprocessing):
            raise DataError(
                f"{table.source or 'the table'}: the decoded images belong to another table or preprocessing; "
                "create them with those of the dataset"
            )
        self.table = table
        self.preprocessing = preprocessing
        self.task = task
        self.augment = augment
        self.seed = seed
        self.decoded, self.echoed = decoded, echoed
        self._archives = OpenedArchives()  # for worker processes
        self.tiles = None if preprocessing.tiling is None else TileSamples(table, preprocessing, tiles, seed)
        self._last: tuple[int, npt.NDArray[np.uint8]] | None = None  # row and image, which is often read again next
        self._warned = False

    def __len__(self) -> int:
        return len(self.table) if self.tiles is None else len(self.tiles)

    def ground_truth_table(self) -> AnnotationTable:
        """The table; see :class:`~detseg.datasets.contracts.GroundTruthDataset`."""
        return self.table

    def __repr__(self) -> str:
        augment = "" if self.augment is None else ", augmented"
        names = self.table.class_map.names
        images = counted(len(self.table), "image")
        if self.tiles is not None:
            images = f"{counted(len(self), 'tile')} of {images}"
        return f"Dataset({images}, {self.task}{augment}; {with_classes(names)})"

    def geometry(self, index: int) -> Geometry:
        """Mapping from the network's pixels of sample ``index`` to its upright original (before any augmentation)."""
        row, view = (index, 0) if self.tiles is None else self.tiles.find(index)
        record = self.table[row]
        return self.preprocessing.views(record.size_hw, record.orientation)[view]

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """The sample of a row or, with tiles, of a tile (epoch 0), or of a :class:`SampleKey`.

        Raises:
            DataError: the image cannot be decoded or differs from the table; the message contains the file name.
            OSError: the file cannot be opened.
            IndexError: no such row.
        """
        index, epoch, occurrence = key if isinstance(key, SampleKey) else SampleKey(int(key))
        row, view = (index, 0) if self.tiles is None else self.tiles.find(index, epoch)
        record = self.table[row]
        views = self.preprocessing.views(record.size_hw, record.orientation)
        image = self._image(row, record, views[view])
        target = self._class_target(record) if self.task == "classify" else self._instance_target(record, views, view)
        if self.augment is not None:
            draw = (
                (epoch, record.record, occurrence) if self.tiles is None else (epoch, record.record, occurrence, view)
            )
            image, target = self._augmented(self.augment, image, target, record, draw)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in target.items()}
        tensors["image_id"] = torch.tensor(record.image_id, dtype=torch.int64)
        if self.tiles is not None:
            tensors["tile"] = torch.tensor(view, dtype=torch.int64)
        if self.task == "classify" and len(record.class_index) == 1:
            tensors["class_index"] = tensors["class_index"][0]
        pixels = torch.from_numpy(_channels_first(image))
        sizes = tuple(len(field) for field in self.table.label_fields)
        check_sample(pixels, tensors, num_labels=len(self.table.class_map), where=record.name, field_sizes=sizes)
        return pixels, tensors

    def decode(self, row: int) -> None:
        """Decode the image of a row of the table for the cache ``decoded``; errors are those of ``dataset[row]``."""
        self._resized(row, self.table[row])

    def _image(self, row: int, record: Record, geometry: Geometry) -> npt.NDArray[np.uint8]:
        """uint8 [h, w, 3] at the network's size, before any augmentation."""
        resized = self._resized(row, record)
        if self.tiles is not None:
            resized = self.preprocessing.apply(resized, geometry)
        # a transform may modify its input in place
        return resized if self.augment is None else resized.copy()

    def _resized(self, row: int, record: Record) -> npt.NDArray[np.uint8]:
        """The whole image, resized: that of the last call, a cached one, or a decoded one."""
        if self._last is not None and self._last[0] == row:
            return self._last[1]
        cached = None if self.decoded is None else self.decoded.get(row)
        if cached is not None:
            return cached
        geometry = self.preprocessing.geometry(record.size_hw, record.orientation)
        pixels, note = _image(record, geometry, self.preprocessing.value_range)
        if note and not self._warned:
            self._warned = True
            warnings.warn(f"{note} (reported for the first such image only)", stacklevel=3)
        image = self.preprocessing.apply(pixels, geometry)
        if self.decoded is not None:
            self.decoded.put(row, image)
        if self.tiles is not None or self.echoed:
            self._last = row, image
        return image

    def _class_target(self, record: Record) -> dict[str, npt.NDArray[Any]]:
        return {"class_index": record.class_index.astype(np.int64)}

    def _instance_target(self, record: Record, views: Sequence[Geometry], view: int) -> dict[str, npt.NDArray[Any]]:
        """The instances at the network's size, in numpy."""
        geometry = views[view]
        rows = np.flatnonzero(~(record.iscrowd | record.ignore))
        from_hw, to_hw = geometry.original_hw, geometry.resized_hw
        corner_yx, window_hw = geometry.crop_yx, geometry.network_hw
        scale = (to_hw[0] * to_hw[1]) / (from_hw[0] * from_hw[1])
        areas = record.areas[rows] * scale
        if self.tiles is not None:
            is_shown, shares = self.tiles.shown(record.boxes_xywh[rows], views, view)
            rows, areas = rows[is_shown], (areas * shares)[is_shown]
        target: dict[str, npt.NDArray[Any]] = {
            "boxes": _scaled_boxes(record.boxes_xywh[rows], from_hw, to_hw, corner_yx, window_hw),
            "labels": record.labels[rows].astype(np.int64),
            "area": areas.astype(np.float32),
            "iscrowd": np.zeros(len(rows), np.uint8),
        }
        if self.task == "keypoints":
            assert record.keypoints is not None  # checked when the dataset was created
            keypoints = _scaled_keypoints(record.keypoints[rows], from_hw, to_hw, corner_yx, window_hw)
            target["keypoints"] = keypoints
        if self.task == "segment":
            # every instance has one: checked when the dataset was created
            outlines = [outline for row in rows if (outline := record.segmentations[row]) is not None]
            masks, boxes, mask_areas = rasterize_window(outlines, from_hw, to_hw, corner_yx, window_hw)
            target = _with_masks(target, masks, boxes, mask_areas, is_tile=window_hw != to_hw)
        return target

    def _augmented(
        self,
        augment: Augment,
        image: npt.NDArray[np.uint8],
        target: dict[str, npt.NDArray[Any]],
        record: Record,
        draw: tuple[int, ...],
    ) -> tuple[npt.NDArray[np.uint8], dict[str, npt.NDArray[Any]]]:
        schema = self.table.keypoint_schema
        try:
            return augment(
                image,
                target,
                derive_seed(self.seed, *draw),
                swaps=schema.swaps if schema else (),
                landscape=bool((self.seed + draw[0]) % 2),
            )
        except DataError as error:
            raise DataError(f"{record.name}: {error}") from error
        except Exception as error:
            error.add_note(f"while augmenting {record.path} in epoch {draw[0] + 1}")
            raise


def _check_task(table: AnnotationTable, preprocessing: Preprocessing, task: Task) -> None:
    """DataError unless ``table`` has what ``task`` needs."""
    source = table.source or "the table"
    if task not in TASKS:
        raise DataError(f"unknown task {task!r}; available tasks: {', '.join(TASKS)}")
    if task == "classify":
        single = table.class_index.shape[1] == 1
        rows = np.flatnonzero((table.class_index < 0).all(axis=1)) if single else np.zeros(0, np.int64)
        if len(rows):
            raise DataError(
                f"{source}: {len(rows)} of {len(table)} images have no class, the first is {table[int(rows[0])].name}; "
                "add a class or remove the images"
            )
        return
    if preprocessing.crop:
        raise DataError(
            f"task {task}: preprocessing crops to {preprocessing.crop} px, which would cut objects; set crop to 0"
        )
    if task == "keypoints" and table.keypoints is None:
        raise DataError(f"{source}: there are no keypoints; use task detect or annotate keypoints")
    if task == "segment":
        trained = table.trained_rows()
        without_mask = trained[~table.segmentation.present()[trained]]
        if len(without_mask):
            raise DataError(
                f"{source}: {len(without_mask)} of {len(trained)} instances have no mask, the first is "
                f"{instance_name(table, int(without_mask[0]))}; use task detect or annotate masks"
            )


def _image(record: Record, geometry: Geometry, value_range: Range | None) -> tuple[npt.NDArray[np.uint8], str]:
    """uint8 [H, W, 3]: the upright image, possibly decoded at reduced size, but not below the network's input size;
    and the note, or the damage, of :class:`EncodedImage`."""
    if record.member or (record.frame >= 0 and split_frame(record.path) is None):
        raise DataError(f"{record.name}: the image has no path of its own; extract it to a file")
    where = str(record.path)
    encoded = EncodedImage(record.path, name=where)
    stored_hw = encoded.header.size_hw
    if stored_hw != record.stored_hw:
        raise DataError(
            f"{where}: the file is {stored_hw[1]} x {stored_hw[0]} pixels, but the annotations specify "
            f"{record.stored_hw[1]} x {record.stored_hw[0]}; the file was changed, so read the annotations again"
        )
    height, width = geometry.resized_hw
    min_hw = (height, width) if record.orientation < 5 else (width, height)
    # Use the table's orientation, not the file's: the annotations were rotated by it.
    pixels = encoded.decode(upright=False, min_hw=min_hw, value_range=value_range)
    return orient_image(pixels, record.orientation), encoded.note or encoded.damage


def _channels_first(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3] -> [3, H, W], contiguous; eight times faster than a transposed copy."""
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(planes))  # writes into them: they have the right size and dtype
    return planes


def _with_masks(
    target: dict[str, npt.NDArray[Any]],
    masks: npt.NDArray[np.uint8],
    boxes: npt.NDArray[np.float32],
    areas: npt.NDArray[np.float32],
    *,
    is_tile: bool,
) -> dict[str, npt.NDArray[Any]]:
    """``target`` with masks, and the boxes and areas of the masks.

    An object whose mask has no pixel gets the pixel under the centre of its box. In a tile, one that is larger than a
    pixel has its pixels elsewhere, and is left out.
    """
    height, width = masks.shape[1:]
    elsewhere = np.zeros(len(areas), np.bool_)
    for i in np.flatnonzero(areas == 0):
        box = target["boxes"][i]
        if is_tile and (box[2:] - box[:2]).max() > 1:
            elsewhere[i] = True
            continue
        x, y = (box[:2] + box[2:]) / 2
        column, row = min(int(x), width - 1), min(int(y), height - 1)
        masks[i, row, column] = areas[i] = 1
        boxes[i] = column, row, column + 1, row + 1
    target = target | {"masks": masks, "boxes": boxes, "area": areas}
    return {name: value[~elsewhere] for name, value in target.items()} if elsewhere.any() else target


def _scaled_boxes(
    boxes_xywh: npt.NDArray[np.float64],
    from_hw: tuple[int, int],
    to_hw: tuple[int, int],
    corner_yx: tuple[int, int],
    window_hw: tuple[int, int],
) -> npt.NDArray[np.float32]:
    """float32 [N, 4] xyxy inside the window at ``corner_yx`` of the resized image, with positive width and height.

    A box whose size float32 would round to 0 gets the smallest size that float32 can represent.
    """
    scaled = scale_xyxy(xywh_to_xyxy(boxes_xywh), from_hw, to_hw) - np.tile(corner_yx[::-1], 2)
    boxes = clip_xyxy(scaled, window_hw).astype(np.float32)
    ends = np.array([window_hw[1], window_hw[0]], np.float32)
    starts = np.minimum(boxes[:, :2], np.nextafter(ends, np.float32(0)))
    return np.concatenate([starts, np.maximum(boxes[:, 2:], np.nextafter(starts, np.float32(np.inf)))], axis=1)


def _scaled_keypoints(
    keypoints: npt.NDArray[np.float64],
    from_hw: tuple[int, int],
    to_hw: tuple[int, int],
    corner_yx: tuple[int, int],
    window_hw: tuple[int, int],
) -> npt.NDArray[np.float32]:
    """float32 [N, P, 3], relative to the window; a point outside it is (0, 0, 0), not visible."""
    factor = np.array([to_hw[1] / from_hw[1], to_hw[0] / from_hw[0], 1.0])
    scaled = (keypoints * factor - np.array([corner_yx[1], corner_yx[0], 0.0])).astype(np.float32)
    x, y, visibility = np.moveaxis(scaled, -1, 0)
    inside = (visibility > 0) & (x >= 0) & (x <= window_hw[1]) & (y >= 0) & (y <= window_hw[0])
    return np.where(inside[..., None], scaled, np.float32(0))
