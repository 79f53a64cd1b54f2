"""YOLO text files."""

from __future__ import annotations

from detseg.annotations.formats.format import Format, reads_path
from detseg.annotations.formats.yolo.read import find_yolo, read_yolo
from detseg.annotations.formats.yolo.write import write_yolo

FORMAT = Format(
    name="yolo",
    find=find_yolo,
    read=reads_path(read_yolo),
    write=write_yolo,
    suffixes=(".yaml", ".yml"),
    help="data.yaml, or labels/ with a .txt for each image in images/",
)
