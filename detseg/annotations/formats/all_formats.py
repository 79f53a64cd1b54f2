"""List all annotation formats."""

from __future__ import annotations

from detseg.annotations.formats import (
    arrays,
    coco,
    createml,
    csv,
    cvat,
    folders,
    labelme,
    labelstudio,
    masks,
    supervisely,
    via,
    voc,
    yolo,
)
from detseg.annotations.formats.format import Format
from detseg.errors import DataError

FORMATS: tuple[Format, ...] = (
    coco.FORMAT,
    voc.FORMAT,
    arrays.FORMAT,
    yolo.FORMAT,
    cvat.FORMAT,
    labelme.FORMAT,
    via.FORMAT,
    labelstudio.FORMAT,
    createml.FORMAT,
    supervisely.FORMAT,
    csv.FORMAT,
    masks.FORMAT,
    folders.FORMAT,
)
"""All formats, in the order of detection: what a format can be confused with comes first."""


def format_named(name: str) -> Format:
    """The format with this name.

    Raises:
        DataError: there is none.
    """
    for format in FORMATS:
        if format.name == name:
            return format
    raise DataError(f"format {name!r} is not known; choose {', '.join(format.name for format in FORMATS)}")
