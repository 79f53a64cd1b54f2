"""VIA JSON (VGG Image Annotator)."""

from __future__ import annotations

from detseg.annotations.formats.format import Format, reads_attribute
from detseg.annotations.formats.via.read import find_via, read_via
from detseg.annotations.formats.via.write import write_via

FORMAT = Format(
    name="via",
    find=find_via,
    read=reads_attribute(read_via),
    write=write_via,
    suffixes=(".json",),
    help="a VGG Image Annotator .json (version 1, 2 or 3)",
)
