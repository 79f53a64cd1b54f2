"""Write a table as Create ML's JSON."""

from __future__ import annotations

import os
from typing import Any

from detseg.annotations.formats.shared.output_paths import new_folder
from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.formats.shared.writing import image_names, note_images, written_instances
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.runtime.files import write_json

IMAGES = "images"
FILE = "annotations.json"


def write_createml(table: AnnotationTable, folder: str | os.PathLike[str]) -> WriteResult:
    """Write ``annotations.json`` beside ``images/``: each box as its centre, width and height in upright pixels.

    Raises:
        DataError: ``folder`` is not empty, or the table cannot be written (see ``image_names``).
    """
    names = image_names(table, "Create ML")
    root = new_folder(folder)
    notes = RepairLog()
    note_images(table, notes, ())
    entries: list[dict[str, Any]] = []
    for name, record in zip(names, table, strict=True):
        annotations = []
        for row, _ in written_instances(record, notes, ()):
            x, y, width, height = record.boxes_xywh[row].tolist()
            box = {"x": x + width / 2, "y": y + height / 2, "width": width, "height": height}
            annotations.append({"label": table.class_map.name_of(int(record.labels[row])), "coordinates": box})
        entries.append({"image": f"{IMAGES}/{name}", "annotations": annotations})
    write_json(root / FILE, entries)
    return WriteResult([f"{IMAGES}/{name}" for name in names], notes)
