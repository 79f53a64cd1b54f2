"""Read Create ML's JSON into a table: a list of images with boxes, or with labels of the whole image."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.shared.annotation_files import annotation_files, locate_annotation_files, summary_line
from detseg.annotations.formats.shared.json_file import load_tool_json
from detseg.annotations.formats.shared.problems import Problems
from detseg.annotations.formats.shared.shapes import ShapeAnnotation, ShapeInstance, shapes_table
from detseg.annotations.image_lookup import ImageReference
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.media.files import open_file

SHARES = "coordinates of at most 1 read as shares of the image's width and height"

_HEAD = 2**16
_MOST = 1.0 + 1e-6


class _Coordinates(msgspec.Struct):
    """Centre, width and height."""

    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None


class _Object(msgspec.Struct):
    label: str | None = None
    coordinates: _Coordinates | None = None


class _Image(msgspec.Struct):
    """One image. The keys differ between versions and tools; ``label`` is that of the whole image."""

    image: str | None = None
    imagefilename: str | None = None
    filename: str | None = None
    image_url: str | None = msgspec.field(name="imageURL", default=None)
    annotations: list[_Object | str] | str | None = None
    annotation: list[_Object | str] | str | None = None
    label: str | None = None

    @property
    def name(self) -> str:
        return self.image or self.imagefilename or self.filename or self.image_url or ""

    @property
    def objects(self) -> list[_Object | str]:
        items = self.annotations if self.annotations is not None else self.annotation
        items = [items] if isinstance(items, str) else items or []
        return items if self.label is None else [*items, self.label]


def find_createml(root: Path, files: list[str]) -> Detected | None:
    """One line to print, if the folder contains Create ML's JSON at the top level, in annotations/, or in train/, val/,
    test/: a list of objects with an image and ``annotations`` that have ``coordinates`` or a ``label``."""
    return summary_line("Create ML", annotation_files(root, files, ".json", is_createml))


def read_createml(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    split: str = "",
    follow_links: bool = False,
    missing_images: str = "error",
) -> AnnotationTable:
    """Read Create ML's JSON: boxes as centre, width and height in pixels from the top left.

    The file does not state the unit: if no coordinate of the data set exceeds 1, they are shares of the image's width
    and height, with a note. If no image has boxes, its annotations are its class labels; one with several has the label
    fields of :func:`detseg.annotations.formats.shared.label_rows.tag_rows`.

    Arguments and errors are those of :class:`detseg.annotations.formats.format.Reader`; ``data`` is the
    folder or the JSON file. Splits are those in the names of files and folders.
    """
    base, files = locate_annotation_files(Path(data), split, ".json", is_createml, follow_links)
    notes, problems = RepairLog(), Problems()
    annotations: list[ShapeAnnotation] = []
    for file, file_split in files:
        for number, entry in enumerate(load_tool_json(base / file, file, list[_Image], "Create ML", notes), 1):
            where = f"{file}, image {number}"
            with problems.collect():
                annotations.append(_annotation(entry, file, file_split, where, notes))
    source = files[0][0] if len(files) == 1 else base.name
    problems.raise_all(source)
    instances = [instance for annotation in annotations for instance in annotation.instances]
    boxes = [box for instance in instances if (box := instance.box_xywh) is not None]
    if boxes and all(0 <= value <= _MOST for x, y, w, h in boxes for value in (x + w / 2, y + h / 2, w, h)):
        notes.add(SHARES, source)
        for instance in instances:
            instance.unit = 1.0
    return shapes_table(
        annotations, base, images, source=source, notes=notes, classes=classes, bad_instances=bad_instances,
        follow_links=follow_links, missing_images=missing_images,
    )  # fmt: skip


def is_createml(path: Path) -> bool:
    """Whether a JSON file is one of Create ML, by its beginning."""
    with open_file(path) as file:
        head = file.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not re.match(rb"\[\s*\{", head):
        return False
    keys = {*re.findall(rb'"(\w+)"\s*:', head)}
    names = keys & {b"image", b"imagefilename", b"imageURL", b"filename"}
    lists = keys & {b"annotations", b"annotation"}
    is_other = keys & {b"result", b"original_width", b"annotation_id", b"regions", b"box2d", b"shapes", b"bbox"}
    return bool(names and lists and not is_other)


def _annotation(entry: _Image, file: str, split: str, where: str, notes: RepairLog) -> ShapeAnnotation:
    """The boxes of one image, or its labels as tags."""
    if not entry.name:
        raise DataError(f'{where}: no image; add its file name as "image"')
    annotation = ShapeAnnotation(ImageReference(entry.name, file.rpartition("/")[0]), where, split=split)
    for number, item in enumerate(entry.objects, 1):
        label = (item if isinstance(item, str) else item.label or "").strip()
        at = f"{where}, annotation {number} ({label or 'no label'})"
        box = None if isinstance(item, str) else item.coordinates
        if box is not None:
            if box.x is None or box.y is None or box.width is None or box.height is None:
                raise DataError(f"{at}: the coordinates need x, y, width and height; complete or remove them")
            corner = [box.x - box.width / 2, box.y - box.height / 2, box.width, box.height]
            annotation.instances.append(ShapeInstance(label, at, corner))
        elif label:
            annotation.tags[label] = True
        else:
            notes.add("annotation without coordinates and label left out", at)
    return annotation
