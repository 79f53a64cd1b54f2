"""COCO JSON."""

from __future__ import annotations

from detseg.annotations.formats.coco.folder import find_coco, read_coco_files
from detseg.annotations.formats.coco.write import write_coco_folder
from detseg.annotations.formats.format import Format

FORMAT = Format(
    name="coco",
    find=find_coco,
    read=read_coco_files,
    write=write_coco_folder,
    suffixes=(".json",),
    help="a COCO .json file, or a folder with such files directly in it, in annotations/ or in train/, val/, test/",
)
