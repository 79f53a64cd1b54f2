"""From files to the annotation table, and from the table to splits and files. No torch, no pixels but label images."""

from __future__ import annotations

from detseg.annotations.duplicates import shared_content
from detseg.annotations.formats.coco.read import read_coco, write_coco
from detseg.annotations.formats.folders.read import read_image_folder
from detseg.annotations.formats.masks.read import read_masks
from detseg.annotations.layout import Layout, find_format
from detseg.annotations.read import read
from detseg.annotations.repair_log import Notes
from detseg.annotations.split import split, subset
from detseg.annotations.split_file import read_split, write_split
from detseg.annotations.table import AnnotationTable, KeypointSchema, Record, concatenate

__all__ = [
    "AnnotationTable",
    "KeypointSchema",
    "Layout",
    "Notes",
    "Record",
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
    "write_coco",
    "write_split",
]
