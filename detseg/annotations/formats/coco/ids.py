"""Validate the ids of a COCO file: image, category and annotation ids."""

from __future__ import annotations

from collections import Counter

import numpy as np

from detseg.annotations.formats.coco.json_file import (
    CocoAnnotations,
    CocoCategory,
    CocoFile,
    CocoImage,
    Ids,
    Whole,
    rows_of,
    whole,
)
from detseg.annotations.image_files import first_few
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError


def without_group(data: CocoFile, source: str, notes: RepairLog) -> list[CocoCategory]:
    """The categories without the category 0 that Roboflow adds for the project: no annotation uses it, and it is the
    supercategory of all others (it may have the same name as one of them)."""
    groups = [category for category in data.categories if category.id == 0]
    others = [category for category in data.categories if category.id != 0]
    if len(groups) != 1 or not others or 0 in data.annotations.category_id:
        return data.categories
    if any(category.supercategory != groups[0].name for category in others):
        return data.categories
    notes.add("unused category 0, the supercategory of all others, left out", f"{source}: {groups[0].name}")
    return others


def checked_categories(categories: list[CocoCategory], source: str) -> list[CocoCategory]:
    """Categories by ascending id; DataError for an id or a name that occurs twice."""
    for category in categories:
        category.id = whole(category.id, "id", f"{source}, category {category.name!r}")
    for key, values in (
        ("name", [category.name for category in categories]),
        ("id", [category.id for category in categories]),
    ):
        value, times = max(Counter(values).items(), key=lambda item: item[1], default=("", 0))
        if times > 1:
            duplicates = ", ".join(f"{c.id} {c.name!r}" for c in categories if value in (c.id, c.name))
            raise DataError(
                f"{source}: {times} categories have the {key} {value!r} (ids and names: {duplicates}); rename one, or "
                "use one id for the annotations of both"
            )
    return sorted(categories, key=lambda category: category.id)


def checked_images(images: list[CocoImage], source: str) -> dict[int, int]:
    """image id -> row, in order; DataError for an id that occurs twice."""
    ids = [image.id for image in images]
    if set(map(type, ids)) - {int} or max(map(abs, ids), default=0) >= 2**63:
        ids = [whole(image.id, "image id", f"{source} ({image.file_name})") for image in images]
    row_of = dict(zip(ids, range(len(ids)), strict=True))
    if len(row_of) < len(ids):
        names: dict[Whole, str] = {}
        for number, image in zip(ids, images, strict=True):
            if number in names:
                raise DataError(
                    f"{source}: image id {number} is used by {names[number]} and by {image.file_name}; give every "
                    "image a unique id"
                )
            names[number] = image.file_name
    return row_of  # type: ignore[return-value]  # all are whole numbers here


def checked_annotations(
    data: CocoFile, row_of: dict[int, int], categories: list[CocoCategory], source: str, notes: RepairLog
) -> tuple[Ids, Ids, Ids]:
    """For each annotation: int64 row of its image, category id, and annotation id (its position if it has none)."""
    annotations = data.annotations
    known_ids = {int(category.id) for category in categories}
    ids, category_ids = annotations.id, annotations.category_id
    rows = rows_of(annotations.image_id, list(row_of))
    if not isinstance(ids, np.ndarray) and ids.count(None) == len(ids):
        ids = np.arange(len(ids))
    if (
        isinstance(ids, np.ndarray)
        and isinstance(category_ids, np.ndarray)
        and isinstance(annotations.image_id, np.ndarray)
        and (rows >= 0).all()
        and (rows_of(category_ids, list(known_ids)) >= 0).all()
        and (np.diff(np.sort(ids)) > 0).all()
    ):
        return rows, category_ids, ids
    return _check_one_by_one(annotations, data.images, row_of, known_ids, source, notes)


def _check_one_by_one(
    annotations: CocoAnnotations,
    images: list[CocoImage],
    row_of: dict[int, int],
    known_ids: set[int],
    source: str,
    notes: RepairLog,
) -> tuple[Ids, Ids, Ids]:
    """The same for files with an error or a note to report, or whole numbers written as 3.0."""
    checked = np.zeros((3, len(annotations)), np.int64)
    seen: set[int] = set()
    columns = (
        values.tolist() if isinstance(values, np.ndarray) else values
        for values in (annotations.id, annotations.image_id, annotations.category_id)
    )
    for position, (annotation_id, image_id, category_id) in enumerate(zip(*columns, strict=True)):
        where = f"{source}, annotation number {position}"
        number = position if annotation_id is None else whole(annotation_id, "id", where)
        row = row_of.get(whole(image_id, "image_id", where))
        if row is None:
            raise DataError(
                f"{source}, annotation {number}: image_id {image_id} is not among the images; add the image "
                "or remove the annotation"
            )
        where = f"{source}, annotation {number} ({images[row].file_name})"
        if whole(category_id, "category_id", where) not in known_ids:
            listed_ids = first_few([str(category) for category in sorted(known_ids)]) or "none"
            remedy = "add the category or remove the annotation"
            if not known_ids:
                remedy = "captions have no categories: pass the instances file, or add the categories"
            raise DataError(f"{where}: category_id {category_id} is not among the categories ({listed_ids}); {remedy}")
        if number in seen:
            notes.add("duplicate annotation id (annotation ids are not used)", where)
        seen.add(number)
        checked[:, position] = row, int(category_id), number
    return checked[0], checked[1], checked[2]
