"""Read Label Studio's exports "JSON" and "JSON-MIN" into a table."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.labelstudio.min_rows import MinRow, min_rows
from detseg.annotations.formats.labelstudio.results import Region, Results, read_results, with_keypoints
from detseg.annotations.formats.shared.annotation_files import annotation_files, locate_annotation_files, summary_line
from detseg.annotations.formats.shared.json_file import load_tool_json
from detseg.annotations.formats.shared.problems import Problems
from detseg.annotations.formats.shared.shapes import ONLY_CLASS, ShapeAnnotation, ShapeInstance, shapes_table
from detseg.annotations.image_lookup import ImageReference
from detseg.annotations.listing import is_image
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.keypoints import keypoint_schema
from detseg.media.files import open_file

_HEAD = 2**16
_UPLOAD = re.compile(r"^/data/upload/\d+/")  # where the server stores uploaded images, all in one folder
_IMAGE_KEYS = ("image", "img", "image_url", "imageurl", "photo", "url", "file", "path", "ocr")

SKIPPED = "task without a submitted annotation left out"
SEVERAL = "several annotations of a task: one of them is read"


class _Annotation(msgspec.Struct):
    """What one annotator did in a task."""

    result: list[Region] | None = None
    was_cancelled: bool | None = False
    ground_truth: bool | None = False
    updated_at: str | None = ""
    created_at: str | None = ""


class _Task(msgspec.Struct):
    """One image. ``completions`` is the name of ``annotations`` in versions before 1.0."""

    data: dict[str, Any] | None = None
    id: int | str | None = None
    annotations: list[_Annotation] | None = None
    completions: list[_Annotation] | None = None
    predictions: list[msgspec.Raw] | None = None


@dataclass(frozen=True)
class _Item:
    """The annotation of one image that is read."""

    annotation: ShapeAnnotation
    results: Results


def find_labelstudio(root: Path, files: list[str]) -> Detected | None:
    """One line to print, if the folder contains exports of Label Studio at the top level, in annotations/, or in
    train/, val/, test/: a list of tasks with results, or of rows with ``annotator`` and ``annotation_id`` (JSON-MIN).
    """
    return summary_line("Label Studio", annotation_files(root, files, ".json", is_labelstudio))


def read_labelstudio(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    split: str = "",
    follow_links: bool = False,
    missing_images: str = "error",
) -> AnnotationTable:
    """Read tasks of Label Studio: rectangles, polygons, brush masks, ellipses, keypoints of an object, and choices.

    One annotation of each task is read: the one marked as ground truth, else the last that was updated, of those that
    were not skipped (``was_cancelled``); other annotations are noted. Tasks without any are left out with a note, and
    predictions are never read. An annotation without regions is a negative image.

    A rotated rectangle becomes its axis-aligned bounding box, with a note. A keypoint belongs to the region that is its
    parent (``parentID``); if there are no other regions at all, the keypoints of an image are one object. If there are
    no regions, the choices are the labels of images: each ``Choices`` is a label field.

    Arguments and errors are those of :class:`detseg.annotations.formats.format.Reader`; ``data`` is the
    folder or the JSON file. Splits are those in the names of files and folders.
    """
    base, files = locate_annotation_files(Path(data), split, ".json", is_labelstudio, follow_links)
    notes, problems = RepairLog(), Problems()
    items = [item for file, file_split in files for item in _read_file(base / file, file, file_split, notes, problems)]
    problems.raise_all(base.name)
    source = files[0][0] if len(files) == 1 else base.name
    if not items:
        raise DataError(
            f"{source}: no task has a submitted annotation (tasks are skipped, or have only predictions); label images "
            "in Label Studio and submit them, then export again"
        )
    names = sorted({point.name for item in items for point in item.results.points if point.name})
    if names:
        _add_keypoints(items, names, notes)
    annotations = [item.annotation for item in items]
    for annotation, results in ((item.annotation, item.results) for item in items):
        annotation.instances, annotation.lost, annotation.fields = results.instances, results.lost, results.fields
    return shapes_table(
        annotations, base, images, source=source, notes=notes, classes=classes, bad_instances=bad_instances,
        schema=keypoint_schema(names) if names else None, follow_links=follow_links, missing_images=missing_images,
    )  # fmt: skip


def is_labelstudio(path: Path) -> bool:
    """Whether a JSON file is a list of tasks, or of rows of JSON-MIN, by its beginning."""
    with open_file(path) as file:
        head = file.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not re.match(rb"\[\s*\{", head):
        return False
    keys = {*re.findall(rb'"(\w+)"\s*:', head)}
    has_results = bool(keys & {b"annotations", b"completions"}) and b"result" in keys
    is_task = has_results and bool(keys & {b"data", b"from_name", b"original_width"})
    is_row = keys >= {b"annotator", b"annotation_id", b"lead_time"}
    is_region = b"original_width" in keys and any(key.endswith(b"labels") for key in keys)
    return is_task or is_row or is_region


def _read_file(path: Path, file: str, split: str, notes: RepairLog, problems: Problems) -> list[_Item]:
    """The images of one file, of any of the two exports."""
    keys = load_tool_json(path, file, list[dict[str, msgspec.Raw]], "Label Studio", notes)
    if any("annotations" in task or "completions" in task for task in keys):
        return _read_tasks(load_tool_json(path, file, list[_Task], "Label Studio", notes), file, split, notes, problems)
    return _read_rows(
        load_tool_json(path, file, list[dict[str, Any]], "Label Studio", notes), file, split, notes, problems
    )


def _read_tasks(tasks: Sequence[_Task], file: str, split: str, notes: RepairLog, problems: Problems) -> list[_Item]:
    items = []
    for number, task in enumerate(tasks, 1):
        where = f"{file}, task {number if task.id is None else task.id}"
        annotations = task.annotations or task.completions or []
        submitted = [annotation for annotation in annotations if not annotation.was_cancelled]
        if not submitted:
            reason = "skipped" if annotations else "only predictions" if task.predictions else "not labelled"
            notes.add(SKIPPED, f"{where} ({reason})")
            continue
        if len(submitted) > 1:
            notes.add(SEVERAL, f"{where} ({len(submitted)})")
        chosen = max(
            enumerate(submitted),
            key=lambda entry: (bool(entry[1].ground_truth), entry[1].updated_at or entry[1].created_at or "", entry[0]),
        )[1]
        with problems.collect():
            name = _image_name(task.data or {}, where)
            items.append(_item(name, chosen.result or [], {}, (file, split, where), notes, problems))
    return items


def _read_rows(
    rows: Sequence[dict[str, Any]], file: str, split: str, notes: RepairLog, problems: Problems
) -> list[_Item]:
    """The rows of JSON-MIN: one for each annotation of a task."""
    by_task: dict[Any, list[MinRow]] = {}
    for row in min_rows(rows, file, notes, problems):
        by_task.setdefault(row.task, []).append(row)
    items = []
    for several in by_task.values():
        chosen = max(enumerate(several), key=lambda entry: (entry[1].updated_at, entry[0]))[1]
        if len(several) > 1:
            notes.add(SEVERAL, f"{chosen.where} ({len(several)})")
        with problems.collect():
            name = _image_name(chosen.data, chosen.where)
            fields = {key: value for key, value in chosen.fields.items() if value != (name,)}
            items.append(_item(name, chosen.regions, fields, (file, split, chosen.where), notes, problems))
    return items


def _item(
    name: str,
    regions: Sequence[Region],
    fields: dict[str, tuple[str, ...]],
    place: tuple[str, str, str],
    notes: RepairLog,
    problems: Problems,
) -> _Item:
    file, split, where = place
    results = read_results(regions, where, notes, problems)
    results.fields.update(fields)
    reference = ImageReference(name, file.rpartition("/")[0])
    return _Item(ShapeAnnotation(reference, where, results.size_hw, split), results)


def _image_name(data: dict[str, Any], where: str) -> str:
    """The image of a task: the value with a usual key, else the first that is the name of an image."""
    for key, value in sorted(data.items(), key=lambda entry: entry[0].lower() not in _IMAGE_KEYS):
        if isinstance(value, list) and value and all(isinstance(name, str) and is_image(name) for name in value):
            raise DataError(
                f"{where}: {key} has {len(value)} images; import each image as a task of its own, and label it there"
            )
        if isinstance(value, str) and value and (key.lower() in _IMAGE_KEYS or is_image(value.partition("?")[0])):
            return _UPLOAD.sub("", value)
    raise DataError(f"{where}: no image in its data ({', '.join(data) or 'which is empty'}); only images are read")


def _add_keypoints(items: Sequence[_Item], names: Sequence[str], notes: RepairLog) -> None:
    """Add the keypoints to their objects; without any other region, those of an image are one object."""
    only_points = not any(item.results.instances or item.results.lost for item in items)
    for item in items:
        results = item.results
        if only_points and results.points:
            first = results.points[0]
            instance = ShapeInstance(ONLY_CLASS, first.where, unit=first.unit, keypoints=np.zeros((len(names), 3)))
            results.instances, results.ids = [instance], [""]
            results.points = [point._replace(parent="") for point in results.points]
            notes.add("keypoints of an image read as one object, because there are no other regions", first.where)
        with_keypoints(results, names, notes)
