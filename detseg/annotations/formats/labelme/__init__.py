"""LabelMe JSON, and XML of the old web tool."""

from __future__ import annotations

from detseg.annotations.formats.format import Format, reads_path
from detseg.annotations.formats.labelme.read import find_labelme, read_labelme
from detseg.annotations.formats.labelme.write import write_labelme

FORMAT = Format(
    name="labelme",
    find=find_labelme,
    read=reads_path(read_labelme),
    write=write_labelme,
    suffixes=(".json",),
    help="LabelMe's .json or .xml for each image",
)
