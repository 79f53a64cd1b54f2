"""Write a table as a VIA 2 project."""

from __future__ import annotations

import os
from typing import Any

from detseg.annotations.formats.shared.output_paths import new_folder
from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.formats.shared.writing import (
    differs_from_outline,
    image_names,
    note_images,
    written_instances,
)
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable, Record
from detseg.masks import segmentation_box
from detseg.media.files import file_size, is_file
from detseg.runtime.files import write_json

IMAGES = "images"
PROJECT = "via_project.json"


def write_via(table: AnnotationTable, folder: str | os.PathLike[str]) -> WriteResult:
    """Write the VIA project ``via_project.json`` with a dropdown attribute ``class``. Coordinates are upright.

    An instance with one ring is written as a polygon, any other as its box, because VIA has one ring per region and no
    masks. An image without instances is an entry without regions.

    Raises:
        DataError: ``folder`` is not empty, or the table cannot be written (see ``image_names``).
    """
    names = image_names(table, "VIA")
    root = new_folder(folder)
    notes = RepairLog()
    note_images(table, notes, ())
    entries: dict[str, Any] = {}
    for name, record in zip(names, table, strict=True):
        regions = []
        for row, segmentation in written_instances(record, notes, ("masks",)):
            shape = _shape(record, row, notes) if segmentation is not None else _rect(record, row)
            label = table.class_map.name_of(int(record.labels[row]))
            regions.append({"shape_attributes": shape, "region_attributes": {"class": label}})
        size = file_size(record.path) if is_file(record.path) else -1  # VIA uses name and size in bytes as the key
        key = f"{name}{size}"
        if key in entries:
            key = f"{key}-{record.split}"
        entries[key] = {"filename": name, "size": size, "regions": regions, "file_attributes": {}}
    options = dict.fromkeys(table.class_map.names, "")
    attribute = {"type": "dropdown", "description": "", "options": options, "default_options": {}}
    value = {
        "_via_settings": {
            "ui": {},
            "core": {"buffer_size": 18, "filepath": {}, "default_filepath": f"{IMAGES}/"},
            "project": {"name": "project"},
        },
        "_via_img_metadata": entries,
        "_via_attributes": {"region": {"class": attribute}, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(entries),
    }
    write_json(root / PROJECT, value)
    return WriteResult([f"{IMAGES}/{name}" for name in names], notes)


def _rect(record: Record, row: int) -> dict[str, Any]:
    x, y, width, height = record.boxes_xywh[row].tolist()
    return {"name": "rect", "x": x, "y": y, "width": width, "height": height}


def _shape(record: Record, row: int, notes: RepairLog) -> dict[str, Any]:
    """The polygon of an instance with one ring, else its box."""
    segmentation = record.segmentations[row]
    where = f"{record.name}, instance {row}"
    if isinstance(segmentation, dict) or segmentation is None or len(segmentation) != 1:
        notes.add("mask that is not a single polygon not written, only its box", where)
        return _rect(record, row)
    if differs_from_outline(record.boxes_xywh[row], segmentation_box(segmentation)):
        notes.add("box that differs from its outline not written", where)
    ring = segmentation[0]
    return {"name": "polygon", "all_points_x": ring[:, 0].tolist(), "all_points_y": ring[:, 1].tolist()}
