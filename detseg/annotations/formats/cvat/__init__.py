"""CVAT XML."""

from __future__ import annotations

from detseg.annotations.formats.cvat.read import find_cvat, read_cvat
from detseg.annotations.formats.cvat.write import write_cvat
from detseg.annotations.formats.format import Format, reads_attribute

FORMAT = Format(
    name="cvat",
    find=find_cvat,
    read=reads_attribute(read_cvat),
    write=write_cvat,
    suffixes=(".xml",),
    help='CVAT\'s .xml ("CVAT for images")',
)
