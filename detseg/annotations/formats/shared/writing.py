"""Helpers of the writers: image paths, the instances to write, and notes of what cannot be written."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import Segmentation
from detseg.annotations.table import AnnotationTable, Record
from detseg.errors import DataError
from detseg.masks import segmentation_area


def image_names(table: AnnotationTable, format_name: str) -> list[str]:
    """The path of each image below the format's image folder: the same as below the table's root.

    Raises:
        DataError: class labels of whole images; images that are not separate files (members of an archive, frames); a
            path that leads out of the folder, or that two images have.
    """
    if table.has_class_index:
        raise DataError(f"{table.source}: {format_name} cannot store the classes of whole images; keep the folders")
    names: list[str] = []
    rows: dict[str, int] = {}
    for row, name in enumerate(table.media.tolist()):
        shown = name or f"image {row}"
        path = PurePosixPath(name)
        if not table.has_path(row):
            raise DataError(f"{table.source}: {shown} is not a separate image file; extract it first")
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{table.source}: {shown} is outside {table.root}; copy the images into one folder")
        if name in rows and table.split[row] == table.split[rows[name]]:
            raise DataError(f"{table.source}: {shown} occurs twice; keep one record per image")
        rows[name] = row
        names.append(name)
    return names


def check_distinct_stems(names: list[str], format_name: str) -> None:
    """DataError if two images differ only in their suffix (or not at all): they would share one annotation file."""
    first_by_stem: dict[str, str] = {}
    for number, name in enumerate(names):
        first = first_by_stem.setdefault(str(PurePosixPath(name).with_suffix("")), name)
        if first != name or len(first_by_stem) <= number:
            raise DataError(f"{first} and {name} would have the same {format_name} file; rename one of them")


def written_instances(
    record: Record, notes: RepairLog, supported: Collection[str]
) -> Iterator[tuple[int, Segmentation]]:
    """(row, segmentation or None) of each instance of an image that the format can store; the rest goes to ``notes``.

    Crowds and ignored instances are left out, because they would be read back as ordinary objects.

    Args:
        supported: the fields that the format can store, any of "masks", "keypoints", "difficult".
    """
    for row in range(len(record)):
        where = f"{record.name}, instance {row}"
        if record.iscrowd[row]:
            notes.add("crowd region not written", where)
            continue
        if record.ignore[row]:
            notes.add("ignored instance not written", where)
            continue
        if record.difficult[row] and "difficult" not in supported:
            notes.add("difficult flag of an instance not written", where)
        segmentation = record.segmentations[row]
        if segmentation is not None and "masks" not in supported:
            notes.add("mask not written, only its box", where)
            segmentation = None
        if record.keypoints is not None and "keypoints" not in supported:
            notes.add("keypoints not written", where)
        box, area = record.boxes_xywh[row], float(record.areas[row])
        box_area = float(box[2] * box[3])
        derived = box_area if segmentation is None else segmentation_area(segmentation, record.size_hw)
        if record.segmentations[row] is segmentation and abs(area - derived) > 1e-6 * max(derived, 1.0):
            notes.add("area not written: readers compute it from the outline", where)
        yield row, segmentation


def note_images(table: AnnotationTable, notes: RepairLog, supported: Collection[str]) -> None:
    """Note image fields that a format cannot store: "splits", "class_ids" unless supported, and groups, always."""
    for row in range(len(table)):
        if table.group[row]:
            notes.add("group of an image not written", table[row].name)
        if table.split[row] and "splits" not in supported:
            notes.add("split of an image not written", table[row].name)
    if table.class_map.category_ids != tuple(range(1, len(table.class_map) + 1)) and "class_ids" not in supported:
        notes.add("category ids not written", f"{list(table.class_map.category_ids)[:10]}")


def mask_box(mask: npt.NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """left, top, width, height of the bounding box of a non-empty mask [H, W]."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


def differs_from_outline(box: npt.NDArray[np.float64], outline: tuple[float, float, float, float]) -> bool:
    """Whether a box [4] differs from the box of its outline, which would replace it on reading."""
    return bool(np.abs(box - np.array(outline)).max() > 1e-6)
