"""Write a table as a YOLO folder: data.yaml, labels/, and the image paths for images/."""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from detseg.annotations.formats.shared.output_paths import image_names, new_folder
from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable, Record
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.keypoints import KeypointSchema, keypoint_schema, unnamed
from detseg.runtime.files import write_text

NO_SPLIT_FOLDER = "rest"
"""Folder of images without a split if other images have one; data.yaml does not list it."""


def write_yolo(table: AnnotationTable, folder: str | os.PathLike[str]) -> WriteResult:
    """Write one text file per image and data.yaml, with all digits.

    Coordinates refer to the upright image, because YOLO's loaders rotate it by EXIF. A file contains polygons if every
    object of its image is one ring, else boxes (loaders misread files with both); with keypoints it contains
    poses. Crowds and ignored objects are left out: YOLO would train on them. Class numbers are label - 1.

    Args:
        folder: a new or empty folder.

    Raises:
        DataError: the folder is not empty; two images of a split differ only in their suffix; class labels of whole
            images; a file name with a line break.
        OSError: the folder cannot be written.
    """
    names = image_names(table, "YOLO", drop_splits=True)
    for name in names:
        if len(name.splitlines()) > 1:
            raise DataError(f"{table.source}: the name {name!r} contains a line break; rename the image")
    root = new_folder(folder)
    notes = RepairLog()
    has_splits = bool((table.split != "").any())
    image_paths = [
        f"{split or NO_SPLIT_FOLDER}/{name}" if has_splits else name
        for split, name in zip(table.split.tolist(), names, strict=True)
    ]  # fmt: skip
    for record, image_path in zip(table, image_paths, strict=True):
        lines = yolo_lines(record, image_path, notes)
        write_text(
            root / "labels" / PurePosixPath(image_path).with_suffix(".txt"), "".join(f"{line}\n" for line in lines)
        )
        if record.group:
            notes.add("group of an image not written", image_path)
        if has_splits and not record.split:
            notes.add(f"image without a split in {NO_SPLIT_FOLDER}/, which data.yaml does not list", image_path)
    config = _config(table.class_map, table.keypoint_schema, table.source, notes)
    write_text(root / "data.yaml", yaml_text(_places(table, has_splits, notes) | config))
    return WriteResult([f"images/{image_path}" for image_path in image_paths], notes)


def yolo_config(class_map: ClassMap, schema: KeypointSchema | None, notes: RepairLog) -> str:
    """The text of data.yaml for images without splits."""
    return yaml_text({"train": "images", "val": "images"} | _config(class_map, schema, "", notes))


def yaml_text(config: dict[str, Any]) -> str:
    """``config`` as YAML, in order."""
    return str(yaml.safe_dump(config, allow_unicode=True, sort_keys=False, width=10**6))


def _places(table: AnnotationTable, has_splits: bool, notes: RepairLog) -> dict[str, Any]:
    """Where the images of the splits are."""
    if not has_splits:
        if len(table):
            notes.add("no split: data.yaml lists the same images for train and val", table.source or "table")
        return {"train": "images", "val": "images"}
    present = set(table.split.tolist())
    if not {"train", "val"} <= present:
        notes.add("data.yaml without train or val, which YOLO training requires", ", ".join(sorted(present)))
    return {split: f"images/{split}" for split in ("train", "val", "test") if split in present}


def _config(class_map: ClassMap, schema: KeypointSchema | None, source: str, notes: RepairLog) -> dict[str, Any]:
    """The classes and keypoints."""
    config: dict[str, Any] = {"names": dict(enumerate(class_map.names))}
    if schema is not None:
        config["kpt_shape"] = [len(schema.names), 3]
        flips = list(range(len(schema.names)))
        for a, b in schema.swaps:
            flips[a], flips[b] = b, a
        config["flip_idx"] = flips
        if schema.names != unnamed(len(schema.names)):
            config["kpt_names"] = {index: list(schema.names) for index in range(len(class_map))}
        if schema.skeleton:
            notes.add("skeleton of the keypoints not written", source or "table")
        if schema.sigmas and schema.sigmas != keypoint_schema(schema.names).sigmas:
            notes.add("OKS falloffs of the keypoints not written", source or "table")
    return config


def yolo_lines(record: Record, image_path: str, notes: RepairLog) -> list[str]:
    """The lines of the label file of one image; fields that YOLO cannot store are noted."""
    height, width = record.size_hw
    rows = []
    for row in range(len(record)):
        if record.iscrowd[row] or record.ignore[row]:
            notes.add("crowd or ignored object left out", f"{image_path}, object {row + 1}")
        else:
            rows.append(row)
    is_one_ring = [_is_one_ring(record, row) for row in rows]
    as_polygons = bool(rows) and all(is_one_ring) and record.keypoints is None
    lines = []
    for row, one_ring in zip(rows, is_one_ring, strict=True):
        where = f"{image_path}, object {row + 1}"
        if record.difficult[row]:
            notes.add("difficult object written as an ordinary object", where)
        if as_polygons:
            numbers = _ring_numbers(record, row, where, notes)
        else:
            x, y, w, h = record.boxes_xywh[row].tolist()
            numbers = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
            if record.segmentations[row] is not None:
                reason = "in a file of boxes or poses" if one_ring else "of several rings or RLE"
                notes.add(f"mask {reason} not written (only its box)", where)
        if record.keypoints is not None:
            numbers += _point_numbers(record.keypoints[row], (height, width))
        lines.append(" ".join([str(int(record.labels[row]) - 1), *map(_formatted, numbers)]))
    return lines


def _is_one_ring(record: Record, row: int) -> bool:
    segmentation = record.segmentations[row]
    return isinstance(segmentation, list) and len(segmentation) == 1


def _ring_numbers(record: Record, row: int, where: str, notes: RepairLog) -> list[float]:
    segmentation = record.segmentations[row]
    assert isinstance(segmentation, list)
    size = np.array(record.size_hw[::-1], np.float64)
    normalized = segmentation[0] / size
    clipped = np.clip(normalized, 0.0, 1.0)
    if (clipped != normalized).any():
        notes.add("polygon clipped to the image", where)
    low, high = (clipped * size).min(axis=0), (clipped * size).max(axis=0)
    x, y, w, h = record.boxes_xywh[row].tolist()
    if np.abs([low[0] - x, low[1] - y, high[0] - x - w, high[1] - y - h]).max() > 1:
        notes.add("box that differs from its polygon not written", where)
    return clipped.ravel().tolist()


def _point_numbers(points: npt.NDArray[np.float64], size_hw: tuple[int, int]) -> list[float]:
    numbers: list[float] = []
    for x, y, visibility in points.tolist():
        numbers += [x / size_hw[1], y / size_hw[0], visibility] if visibility else [0.0, 0.0, 0.0]
    return numbers


def _formatted(number: float) -> str:
    """All digits; whole numbers without a decimal point."""
    return str(int(number)) if number.is_integer() else repr(number)
