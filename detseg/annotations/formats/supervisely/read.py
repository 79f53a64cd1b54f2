"""Read Supervisely projects into a table: ``meta.json``, and a JSON file in ``ann`` for each image in ``img``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from detseg.annotations.builder import MAX_SIDE
from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.shared.json_file import load_tool_json
from detseg.annotations.formats.shared.problems import Problems
from detseg.annotations.formats.shared.shapes import ClassList, ShapeAnnotation, shapes_table
from detseg.annotations.formats.supervisely.figures import Figure, instance_of, node_names
from detseg.annotations.formats.supervisely.meta import META, Meta, read_meta
from detseg.annotations.image_lookup import ImageReference
from detseg.annotations.listing import list_files, split_of
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.keypoints import keypoint_schema
from detseg.media.files import exists, is_file, open_file

_ANNOTATIONS, _IMAGES = "ann", "img"
_HEAD = 2**16
_FILES_CHECKED = 3  # files that are opened to detect the format


class _Tag(msgspec.Struct):
    name: str
    value: str | float | None = None


class _Size(msgspec.Struct):
    height: float
    width: float


class _File(msgspec.Struct):
    """The annotation of one image."""

    size: _Size
    objects: list[Figure] = []
    tags: list[_Tag | str] | None = None


def find_supervisely(root: Path, files: list[str]) -> Detected | None:
    """One line to print, if the folder contains a project of Supervisely, or one of its datasets.

    The annotations are JSON files in folders ``ann``, or directly in the folder; the first three decide: they are
    objects with ``size`` and ``objects``.
    """
    names = _annotation_files(files)
    if not names or not all(is_supervisely(root / file) for file in names[:_FILES_CHECKED]):
        return None
    meta = f", {META}" if META in files else ""
    return Detected(f"Supervisely: {len(names)} JSON files{meta}")


def read_supervisely(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    split: str = "",
    follow_links: bool = False,
    missing_images: str = "error",
) -> AnnotationTable:
    """Read a project: rectangles, polygons with holes (as masks), bitmaps, and graphs of keypoints; others are noted.

    The corners of a rectangle are its first and its last pixel. Nodes that are disabled are not labelled. Classes are
    those of ``meta.json``, if it exists. Tags with the names train, val and test are splits, if every image has one;
    other splits are the names of the datasets. If no image has objects, the other tags are its labels: a tag with
    values is a label field. An image without objects is negative.

    Arguments and errors are those of :class:`detseg.annotations.formats.format.Reader`; ``data`` is the
    folder or one annotation file.
    """
    data = Path(data)
    if not exists(data):
        raise FileNotFoundError(f"{data}: no such file or folder")
    base = data.parent if is_file(data) else data
    is_read = None if is_file(data) else lambda file: bool(_annotation_files([file]))
    listed = [data.name, META] if is_file(data) else list_files(base, follow_links, is_read)
    files = [data.name] if is_file(data) else _annotation_files(listed)
    if not files:
        raise DataError(f"{data}: no annotation file of Supervisely in it (<dataset>/{_ANNOTATIONS}/<image>.json)")
    notes, problems = RepairLog(), Problems()
    meta_files = sorted((file for file in listed if PurePosixPath(file).name == META), key=lambda file: file.count("/"))
    meta = read_meta(base / (meta_files[0] if meta_files else META), notes)
    contents: list[tuple[str, _File]] = []
    for file in files:
        with problems.collect():
            contents.append((file, load_tool_json(base / file, file, _File, "Supervisely", notes)))
    names = node_names([figure for _, content in contents for figure in content.objects], meta)
    annotations: list[ShapeAnnotation] = []
    for file, content in contents:
        with problems.collect():
            annotations.append(_annotation(file, content, meta, names, notes, problems))
    source = data.name if is_file(data) else str(base)
    problems.raise_all(source)
    _set_splits(annotations, split, notes)
    return shapes_table(
        annotations, base, images, source=source, notes=notes,
        class_list=ClassList(tuple(meta.shapes)) if meta.shapes else None, classes=classes,
        bad_instances=bad_instances, schema=keypoint_schema(names, meta.skeleton(names)) if names else None,
        follow_links=follow_links, missing_images=missing_images,
    )  # fmt: skip


def is_supervisely(path: Path) -> bool:
    """Whether a JSON file is the annotation of one image, by its beginning."""
    with open_file(path) as file:
        head = file.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(b"{") and all(re.search(rb'"%s"\s*:' % key, head) for key in (b"size", b"objects"))


def _annotation_files(files: Sequence[str]) -> list[str]:
    """The JSON files in folders ``ann``; without any, those directly in the folder."""
    names = [file for file in files if file.lower().endswith(".json")]
    inside = [file for file in names if PurePosixPath(file).parent.name == _ANNOTATIONS]
    return inside or [file for file in names if "/" not in file and file != META]


def _annotation(
    file: str, content: _File, meta: Meta, names: Sequence[str], notes: RepairLog, problems: Problems
) -> ShapeAnnotation:
    """The objects and tags of one image."""
    height, width = content.size.height, content.size.width
    if not all(0 < side <= MAX_SIDE and side == int(side) for side in (height, width)):
        raise DataError(
            f"{file}: the size {width:g} x {height:g} is not valid; correct it, or export the project again"
        )
    path = PurePosixPath(file)
    inside = path.parent.name == _ANNOTATIONS
    folder = path.parent.parent if inside else path.parent
    image = ImageReference(f"{_IMAGES}/{path.stem}" if inside else path.stem, "" if str(folder) == "." else str(folder))
    annotation = ShapeAnnotation(image, file, (int(height), int(width)))
    for number, figure in enumerate(content.objects, 1):
        title = figure.title(meta)
        with problems.collect():
            where = f"{file}, object {number} ({title})"
            instance = instance_of(figure, meta, names, (int(height), int(width)), where, notes)
            if instance is None:
                annotation.lost.append(title)
            else:
                annotation.instances.append(instance)
    for tag in content.tags or []:
        name, value = (tag, None) if isinstance(tag, str) else (tag.name, tag.value)
        if value is None or value == "":
            annotation.tags[name.strip()] = True
        else:
            annotation.fields[name.strip()] = (*annotation.fields.get(name.strip(), ()), _text(value))
    return annotation


def _text(value: str | float) -> str:
    if isinstance(value, str):
        return value.strip()
    return str(int(value)) if value.is_integer() else str(value)


def _set_splits(annotations: Sequence[ShapeAnnotation], split: str, notes: RepairLog) -> None:
    """Set the split of each image: the one that was passed, that of its tags, or that of its dataset."""
    of_tags: list[Any] = []
    for annotation in annotations:
        tags = [tag for tag in annotation.tags if split_of(tag) and tag == tag.lower()]
        of_tags.append(split_of(tags[0]) if len(tags) == 1 else "")
    of_folders = [split_of(annotation.image.folder.rpartition("/")[2]) for annotation in annotations]
    use_tags = bool(of_tags) and all(of_tags)
    for annotation, of_tag, of_folder in zip(annotations, of_tags, of_folders, strict=True):
        if use_tags:
            annotation.tags = {tag: is_set for tag, is_set in annotation.tags.items() if not split_of(tag)}
        elif of_tag:
            notes.add("tag that is the name of a split not used as one: not every image has one", annotation.where)
        annotation.split = split or (of_tag if use_tags else of_folder if all(of_folders) else "")
