"""Write a table as CVAT XML, "CVAT for images 1.1"."""

from __future__ import annotations

import os
import re
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import numpy.typing as npt

from detseg.annotations.formats.shared.output_paths import new_folder
from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.formats.shared.writing import (
    differs_from_outline,
    image_names,
    mask_box,
    note_images,
    written_instances,
)
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import Segmentation
from detseg.annotations.table import AnnotationTable, Record
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.masks import rle_to_mask, segmentation_box, segmentation_to_rle
from detseg.runtime.files import write_text

IMAGES = "images"
FILE = "annotations.xml"
TAIL = "</annotations>\n"
"""The end of the file."""

_SUBSETS = {"train": "Train", "val": "Validation", "test": "Test"}


def write_cvat(table: AnnotationTable, folder: str | os.PathLike[str]) -> WriteResult:
    """Write ``annotations.xml``: classes as labels, splits as subsets, upright coordinates with all digits.

    An instance with one ring is written as a polygon, with several rings or an RLE as a mask (pixels, not points), and
    without an outline as a box; a box that differs from its outline is not written. An image without instances has no
    shapes.

    Raises:
        DataError: ``folder`` is not empty, or the table cannot be written (see ``image_names``).
    """
    names = image_names(table, "CVAT")
    for text in names:
        check_xml(text, table.source)
    head = cvat_head(table.class_map, table.source)
    root = new_folder(folder)
    notes = RepairLog()
    note_images(table, notes, ("splits",))
    lines = [head]
    for number, (name, record) in enumerate(zip(names, table, strict=True)):
        lines.append(cvat_image(number, name, record, table.class_map, notes))
    write_text(root / FILE, "".join([*lines, TAIL]))
    return WriteResult([f"{IMAGES}/{name}" for name in names], notes)


def cvat_head(class_map: ClassMap, source: str) -> str:
    """The beginning of the file: the classes as labels. DataError if XML does not allow a name.

    Args:
        source: of the classes, for messages.
    """
    for text in class_map.names:
        check_xml(text, source)
    labels = [f"<label><name>{escape(name)}</name><attributes></attributes></label>" for name in class_map.names]
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "<version>1.1</version>"]
    return "\n".join([*lines, "<meta><task><labels>", *labels, "</labels></task></meta>\n"])


def cvat_image(number: int, name: str, record: Record, class_map: ClassMap, notes: RepairLog) -> str:
    """The element of one image; what the format cannot store is added to ``notes``."""
    height, width = record.size_hw
    subset = {"subset": _SUBSETS.get(record.split, record.split)} if record.split else {}
    lines = [f"<image{_attributes(id=number, name=name, **subset, width=width, height=height)}>"]
    for row, segmentation in written_instances(record, notes, ("masks",)):
        lines.append(_shape(record, row, segmentation, class_map.name_of(int(record.labels[row])), notes))
    return "\n".join([*lines, "</image>\n"])


def check_xml(text: str, source: str) -> None:
    """DataError if a name has a character that XML does not allow."""
    if re.search(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text):
        raise DataError(f"{source}: {text!r} contains a character that XML does not allow; rename it")


def _attributes(**values: Any) -> str:
    return "".join(f" {name}={quoteattr(str(value))}" for name, value in values.items())


def _shape(record: Record, row: int, segmentation: Segmentation, label: str, notes: RepairLog) -> str:
    x, y, width, height = record.boxes_xywh[row].tolist()
    where = f"{record.name}, instance {row}"
    common = {"label": label, "source": "file", "occluded": 0}
    end = {"z_order": 0}
    box = f"<box{_attributes(**common, xtl=x, ytl=y, xbr=x + width, ybr=y + height, **end)}/>"
    if segmentation is None:
        return box
    if isinstance(segmentation, list) and len(segmentation) == 1:
        points = ";".join(f"{px!r},{py!r}" for px, py in segmentation[0].tolist())
        element, outline = f"<polygon{_attributes(**common, points=points, **end)}/>", segmentation_box(segmentation)
    else:
        if isinstance(segmentation, list):
            notes.add("polygon of several rings written as a mask", where)
        mask = rle_to_mask(segmentation_to_rle(segmentation, record.size_hw))
        if not mask.any():
            notes.add("empty mask not written, only its box", where)
            return box
        left, top, mask_width, mask_height = mask_box(mask)
        rle = ", ".join(map(str, _runs(mask[top : top + mask_height, left : left + mask_width])))
        geometry = {"rle": rle, "left": left, "top": top, "width": mask_width, "height": mask_height}
        element, outline = f"<mask{_attributes(**common, **geometry, **end)}/>", (left, top, mask_width, mask_height)
    if differs_from_outline(record.boxes_xywh[row], outline):
        notes.add("box that differs from its outline not written", where)
    return element


def _runs(crop: npt.NDArray[np.uint8]) -> list[int]:
    """Row-major run lengths of a crop [h, w] in {0, 1}, zeros first."""
    flat = np.concatenate([[0], crop.ravel()])  # makes the first run one of zeros, one too long
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [len(flat)]]))
    runs[0] -= 1
    return [int(run) for run in runs]
