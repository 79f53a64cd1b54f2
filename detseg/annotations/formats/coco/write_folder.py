"""A table as a folder in COCO's own layout: annotations/instances_<split>.json and images/."""

from __future__ import annotations

import os

import numpy as np

from detseg.annotations.formats.coco.read import write_coco
from detseg.annotations.formats.shared.output_paths import new_folder
from detseg.annotations.formats.shared.writing import picture_names
from detseg.annotations.formats.shared.written import Written
from detseg.annotations.repair_log import Notes
from detseg.annotations.table import AnnotationTable


def write_coco_folder(table: AnnotationTable, folder: str | os.PathLike[str]) -> Written:
    """One JSON file for each of the source's own splits, or ``instances.json`` if it has none.

    COCO holds all that a table of instances holds but the groups of its images.

    Raises:
        DataError: ``folder`` is not empty, or the table cannot be written (see ``picture_names``).
    """
    notes = Notes()
    for row in np.flatnonzero(table.group != ""):
        notes.add("group of an image not written", table[int(row)].name)
    names = picture_names(table, "COCO")
    root = new_folder(folder)
    for split in sorted(set(table.split.tolist())):
        name = f"instances_{split}.json" if split else "instances.json"
        write_coco(table.subset(np.flatnonzero(table.split == split)), root / "annotations" / name)
    return Written([f"images/{picture}" for picture in names], notes)
