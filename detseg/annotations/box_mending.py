"""Convert the boxes of a whole data set, or of rotated images, that are in another format than its annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from detseg.annotations.columns import InstanceColumns
from detseg.annotations.instance_box import outline_box
from detseg.annotations.plausibility import ImplausibleBoxes, check_plausible, converted
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.rotated_coordinates import rotated_coordinates
from detseg.orientation import upright_hw

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ImageFrames:
    """Size, EXIF orientation, frame of the coordinates, and name of each image; see ``TableBuilder.add_image``."""

    stored_hw: Sequence[tuple[int, int]]
    orientation: Sequence[int]
    stored_frame: Sequence[bool]
    names: Sequence[str]

    def upright_hw(self, row: int) -> tuple[int, int]:
        """Height and width of the upright image."""
        return upright_hw(self.stored_hw[row], self.orientation[row])


def checked_boxes(
    instances: InstanceColumns,
    source_boxes: Float64,
    image: npt.NDArray[np.int64],
    frames: ImageFrames,
    source: str,
    notes: RepairLog,
    *,
    mend: bool,
) -> InstanceColumns:
    """The instances, if their boxes can be x, y, width, height in pixels; with a note of each image whose boxes are of
    another rotation.

    Args:
        instances: with the boxes as they were read.
        source_boxes, image: float64 [M, 4] and int64 [M], the boxes before clipping, and their images.
        frames: of the images.
        source: name of the data set in messages.
        notes: for what is found.
        mend: convert boxes of another format or rotation, where nothing else can be wrong.

    Raises:
        ImplausibleBoxes: boxes of another format; with ``mend`` only if they cannot be converted.
    """
    sizes = np.array([frames.upright_hw(row) for row in range(len(frames.names))], np.int64).reshape(-1, 2)
    try:
        check_plausible(source_boxes, sizes[image], source)
    except ImplausibleBoxes as error:
        if not mend:
            raise
        return mended_format(instances, source_boxes, sizes[instances.image], error, source, notes)
    rotated = rotated_coordinates(source_boxes, image, frames.stored_hw, frames.orientation, frames.stored_frame)
    for row, (kind, upright) in rotated.items():
        rows = np.flatnonzero(instances.image == row)
        mended = None
        if mend and len(rows) == len(upright):
            mended = mended_boxes(instances, rows, upright, frames.upright_hw(row))
        notes.add(f"rotated, as its {kind}" if mended else kind, frames.names[row])
        instances = mended or instances
    return instances


def mended_format(
    instances: InstanceColumns,
    source_boxes: Float64,
    sizes_hw: npt.NDArray[np.int64],
    error: ImplausibleBoxes,
    source: str,
    notes: RepairLog,
) -> InstanceColumns:
    """The instances with boxes that are converted from what ``error`` says that they are.

    Where there is an outline, the box is that of the outline. Areas without one are computed.

    Args:
        instances: N instances with the boxes as they were read.
        source_boxes: float64 [M, 4], the boxes before clipping.
        sizes_hw: int64 [N, 2], upright height and width of the image of each.
        error: of ``check_plausible``.
        source: name of the data set in the note.
        notes: for the number of boxes that are converted.

    Raises:
        ImplausibleBoxes: ``error``, if the format is not known, or instances were lost.
    """
    if not error.meaning or len(instances) != len(source_boxes):
        raise error
    boxes = converted(source_boxes, sizes_hw, error.meaning)
    outlined = instances.segmentation.present()
    for row in np.flatnonzero(outlined).tolist():
        height, width = sizes_hw[row].tolist()
        boxes[row] = outline_box(instances.segmentation[row] or [np.zeros((1, 2))], (height, width))
    if (boxes[:, 2:] <= 0).any():
        raise error
    notes.add(f"boxes converted from {error.meaning}", f"{source}: all {len(boxes)}")
    area = np.where(outlined, instances.area, boxes[:, 2] * boxes[:, 3])
    return replace(instances, boxes_xywh=boxes, area=area)


def mended_boxes(
    instances: InstanceColumns, rows: npt.NDArray[np.int64], boxes: Float64, size_hw: tuple[int, int]
) -> InstanceColumns | None:
    """The instances with other boxes in ``rows``, clipped to their image; None if that cannot be all that is wrong:
    there are outlines or keypoints, or an empty box."""
    if instances.segmentation.present()[rows].any() or (instances.keypoints[rows] != 0).any():
        return None
    low = np.clip(boxes[:, :2], 0, size_hw[::-1])
    high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, size_hw[::-1])
    if (high <= low).any():
        return None
    all_boxes, area = instances.boxes_xywh.copy(), instances.area.copy()
    all_boxes[rows] = np.concatenate([low, high - low], axis=1)
    area[rows] = (high - low).prod(axis=1)
    return replace(instances, boxes_xywh=all_boxes, area=area)
