"""Create ML's JSON."""

from __future__ import annotations

from detseg.annotations.formats.createml.read import find_createml, read_createml
from detseg.annotations.formats.createml.write import write_createml
from detseg.annotations.formats.format import Format, reads_path

FORMAT = Format(
    name="createml",
    find=find_createml,
    read=reads_path(read_createml),
    write=write_createml,
    suffixes=(".json",),
    help="a Create ML .json: a list of images with annotations",
)
