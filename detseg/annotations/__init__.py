"""Read data sets into an annotation table, split it, write it. No torch, and no pixels except label images."""

from __future__ import annotations

from typing import Any

from detseg import old_names
from detseg.annotations.concatenate import concatenate
from detseg.annotations.duplicates import shared_content
from detseg.annotations.formats.coco.read import read_coco
from detseg.annotations.formats.coco.write import write_coco
from detseg.annotations.formats.folders.read import read_image_folder
from detseg.annotations.formats.format import Layout
from detseg.annotations.formats.masks.read import read_masks
from detseg.annotations.from_dataset import table_from_dataset
from detseg.annotations.layout import find_format
from detseg.annotations.read import read
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.split import split, subset
from detseg.annotations.split_file import read_split, write_split
from detseg.annotations.table import AnnotationTable, Record
from detseg.keypoints import KeypointSchema

__all__ = [
    "AnnotationTable",
    "KeypointSchema",
    "Layout",
    "Record",
    "RepairLog",
    "concatenate",
    "find_format",
    "read",
    "read_coco",
    "read_image_folder",
    "read_masks",
    "read_split",
    "shared_content",
    "split",
    "subset",
    "table_from_dataset",
    "write_coco",
    "write_split",
]


def __getattr__(name: str) -> Any:
    return old_names.attribute(__name__, name)
