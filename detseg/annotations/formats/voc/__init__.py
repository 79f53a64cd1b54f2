"""Pascal VOC XML."""

from __future__ import annotations

from detseg.annotations.formats.format import Format, Layout, ReadOptions
from detseg.annotations.formats.voc.read import find_voc, read_voc
from detseg.annotations.formats.voc.write import write_voc
from detseg.annotations.table import AnnotationTable


def _read(layout: Layout, options: ReadOptions) -> AnnotationTable:
    return read_voc(layout.path, one_based=options.one_based, **options.of_every_reader)


FORMAT = Format(
    name="voc",
    find=find_voc,
    read=_read,
    write=write_voc,
    suffixes=(),
    help="Pascal VOC .xml files, in Annotations/ or beside their images",
)
