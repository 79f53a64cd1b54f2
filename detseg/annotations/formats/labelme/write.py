"""Write a table as LabelMe JSON: one file next to each image."""

from __future__ import annotations

import base64
import os
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np

from detseg.annotations.formats.shared.output_paths import new_folder
from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.formats.shared.writing import (
    check_distinct_stems,
    differs_from_outline,
    image_names,
    mask_box,
    note_images,
    written_instances,
)
from detseg.annotations.listing import split_of
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import Segmentation
from detseg.annotations.table import AnnotationTable, Record
from detseg.classes import ClassMap
from detseg.masks import rle_to_mask, segmentation_box
from detseg.runtime.files import write_json

VERSION = "5.5.0"
"""The LabelMe version of the written files."""


def write_labelme(table: AnnotationTable, folder: str | os.PathLike[str]) -> WriteResult:
    """Write one JSON file per image, with its name and next to its path; in train/, val/, test/ if all images have a
    split. Coordinates are upright pixels.

    Rings of one instance share a ``group_id``; an RLE becomes a mask shape (shown by LabelMe 5.3 and later). An
    instance without a mask is written as a rectangle, and a box that differs from its outline is not written. An image
    without instances has a file without shapes.

    Raises:
        DataError: ``folder`` is not empty, two images differ only in their suffix, or the table cannot be written
            (see ``image_names``).
    """
    names = image_names(table, "LabelMe")
    by_split = len(table) > 0 and bool((table.split != "").all())
    if by_split:
        names = [_in_split_folder(name, str(split)) for name, split in zip(names, table.split, strict=True)]
    check_distinct_stems(names, "LabelMe")
    root = new_folder(folder)
    notes = RepairLog()
    note_images(table, notes, ("splits",) if by_split else ())
    for name, record in zip(names, table, strict=True):
        path = PurePosixPath(name)
        write_json(root / path.with_suffix(".json"), labelme_file(record, table.class_map, path.name, notes))
    return WriteResult(names, notes)


def labelme_file(record: Record, class_map: ClassMap, image_path: str, notes: RepairLog) -> dict[str, Any]:
    """The content of the file of one image.

    Args:
        image_path: of the image, relative to the folder of the file.
        notes: what the format cannot store is added.
    """
    height, width = record.size_hw
    shapes: list[dict[str, Any]] = []
    for row, segmentation in written_instances(record, notes, ("masks", "difficult")):
        label = class_map.name_of(int(record.labels[row]))
        for shape in _shapes(record, row, segmentation, notes):
            difficult = {"difficult": True} if record.difficult[row] else {}
            shapes.append({"label": label, "flags": {}, **shape, **difficult})
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def _in_split_folder(name: str, split: str) -> str:
    return name if "/" in name and split_of(name.partition("/")[0]) == split else f"{split}/{name}"


def _shapes(record: Record, row: int, segmentation: Segmentation, notes: RepairLog) -> list[dict[str, Any]]:
    """The shapes of one instance: a rectangle, a mask, or polygons of its rings."""
    box = record.boxes_xywh[row]
    where = f"{record.name}, instance {row}"
    x, y, width, height = box.tolist()
    rectangle = _shape("rectangle", [[x, y], [x + width, y + height]])
    if segmentation is None:
        return [rectangle]
    if isinstance(segmentation, dict):
        mask = rle_to_mask(segmentation)
        if not mask.any():
            notes.add("empty mask not written, only its box", where)
            return [rectangle]
        left, top, mask_width, mask_height = mask_box(mask)
        shapes = [_mask_shape(mask[top : top + mask_height, left : left + mask_width], left, top)]
        outline = (float(left), float(top), float(mask_width), float(mask_height))
    else:
        group = row + 1 if len(segmentation) > 1 else None
        shapes = [_shape("polygon", ring.tolist(), group) for ring in segmentation]
        outline = segmentation_box(segmentation)
    if differs_from_outline(box, outline):
        notes.add("box that differs from its outline not written", where)
    return shapes


def _shape(kind: str, points: list[list[float]], group: int | None = None) -> dict[str, Any]:
    return {"points": points, "group_id": group, "description": "", "shape_type": kind, "mask": None}


def _mask_shape(crop: Any, left: int, top: int) -> dict[str, Any]:
    encoded, png = cv2.imencode(".png", crop * np.uint8(255))
    assert encoded, "encoding a grayscale PNG cannot fail"
    corners = [[left, top], [left + crop.shape[1] - 1, top + crop.shape[0] - 1]]
    return {**_shape("mask", corners), "mask": base64.b64encode(png.tobytes()).decode("ascii")}
