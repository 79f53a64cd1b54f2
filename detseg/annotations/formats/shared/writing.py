"""What the writers of labelling tools' formats share: the folder, the images' places, and what cannot be written."""

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


def image_names(table: AnnotationTable, what: str) -> list[str]:
    """The path of each image below the format's image folder: that below the table's root.

    Raises:
        DataError: class labels of whole images; images without a file of their own (members of an archive, frames);
            a path that leads out of the folder, or that two images have.
    """
    if table.has_class_index:
        raise DataError(f"{table.source}: {what} has no place for the classes of whole images; keep the folders")
    names: list[str] = []
    rows: dict[str, int] = {}
    for row, name in enumerate(table.media.tolist()):
        called = name or f"image {row}"
        path = PurePosixPath(name)
        if not name or table.member[row] or int(table.frame[row]) >= 0:
            raise DataError(f"{table.source}: {called} is not an image file of its own; take it out of the archive")
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{table.source}: {called} lies outside {table.root}; copy the images into one folder")
        if name in rows and table.split[row] == table.split[rows[name]]:
            raise DataError(f"{table.source}: {called} occurs twice; give each image one record")
        rows[name] = row
        names.append(name)
    return names


def distinct_stems(names: list[str], what: str) -> None:
    """DataError if two images differ in their suffix only (or not at all): their annotation files would be one."""
    seen: dict[str, str] = {}
    for number, name in enumerate(names):
        first = seen.setdefault(str(PurePosixPath(name).with_suffix("")), name)
        if first != name or len(seen) <= number:
            raise DataError(f"{first} and {name} would have the same {what} file; rename one of them")


def written_instances(record: Record, notes: RepairLog, holds: Collection[str]) -> Iterator[tuple[int, Segmentation]]:
    """(row, segmentation or None) of each instance of an image that the format can hold; the rest goes to ``notes``.

    Crowds and ignored instances are left out, because they would come back as ordinary objects.

    Args:
        holds: of "masks", "keypoints", "difficult" what the format holds.
    """
    for row in range(len(record)):
        where = f"{record.name}, instance {row}"
        if record.iscrowd[row]:
            notes.add("crowd region not written", where)
            continue
        if record.ignore[row]:
            notes.add("ignored instance not written", where)
            continue
        if record.difficult[row] and "difficult" not in holds:
            notes.add("mark of a difficult instance not written", where)
        segmentation = record.segmentations[row]
        if segmentation is not None and "masks" not in holds:
            notes.add("mask not written, only its box", where)
            segmentation = None
        if record.keypoints is not None and "keypoints" not in holds:
            notes.add("keypoints not written", where)
        box, area = record.boxes_xywh[row], float(record.areas[row])
        whole = float(box[2] * box[3])
        own = whole if segmentation is None else segmentation_area(segmentation, record.size_hw)
        if record.segmentations[row] is segmentation and abs(area - own) > 1e-6 * max(own, 1.0):
            notes.add("area not written: it is taken from the outline on reading", where)
        yield row, segmentation


def note_images(table: AnnotationTable, notes: RepairLog, holds: Collection[str]) -> None:
    """Note what a format does not hold of the images: "splits", "class_ids"; none holds groups."""
    for row in range(len(table)):
        if table.group[row]:
            notes.add("group of an image not written", table[row].name)
        if table.split[row] and "splits" not in holds:
            notes.add("split of an image not written", table[row].name)
    if table.class_map.category_ids != tuple(range(1, len(table.class_map) + 1)) and "class_ids" not in holds:
        notes.add("category ids not written", f"{list(table.class_map.category_ids)[:10]}")


def mask_box(mask: npt.NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """left, top, width, height of the pixels of a mask [H, W] that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


def differs_from_outline(box: npt.NDArray[np.float64], outline: tuple[float, float, float, float]) -> bool:
    """Whether a box [4] is another than the one around its outline, which it would be replaced by."""
    return bool(np.abs(box - np.array(outline)).max() > 1e-6)
