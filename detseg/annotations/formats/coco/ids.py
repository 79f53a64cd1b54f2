"""The ids of a COCO file, checked: what refers to what."""

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
    """The categories without Roboflow's id 0 of the whole project: no annotation uses it, and it is the supercategory
    of all others (it may have the name of one of them)."""
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
    for what, values in (
        ("name", [category.name for category in categories]),
        ("id", [category.id for category in categories]),
    ):
        value, times = max(Counter(values).items(), key=lambda item: item[1], default=("", 0))
        if times > 1:
            double = ", ".join(f"{c.id} {c.name!r}" for c in categories if value in (c.id, c.name))
            raise DataError(
                f"{source}: {times} categories have the {what} {value!r} (ids and names: {double}); rename one, or "
                "give the annotations of both one id"
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
                    "image an id of its own"
                )
            names[number] = image.file_name
    return row_of  # type: ignore[return-value]  # they are whole by now


def checked_annotations(
    data: CocoFile, row_of: dict[int, int], categories: list[CocoCategory], source: str, notes: RepairLog
) -> tuple[Ids, Ids, Ids]:
    """Of each annotation: int64 row of its image, category id, and its own id (its position where it has none)."""
    listed = data.annotations
    known = {int(category.id) for category in categories}
    own, of_category, rows = listed.id, listed.category_id, rows_of(listed.image_id, list(row_of))
    if not isinstance(own, np.ndarray) and own.count(None) == len(own):
        own = np.arange(len(own))
    if (
        isinstance(own, np.ndarray)
        and isinstance(of_category, np.ndarray)
        and isinstance(listed.image_id, np.ndarray)
        and (rows >= 0).all()
        and (rows_of(of_category, list(known)) >= 0).all()
        and (np.diff(np.sort(own)) > 0).all()
    ):
        return rows, of_category, own
    return _one_by_one(listed, data.images, row_of, known, source, notes)


def _one_by_one(
    listed: CocoAnnotations,
    images: list[CocoImage],
    row_of: dict[int, int],
    known: set[int],
    source: str,
    notes: RepairLog,
) -> tuple[Ids, Ids, Ids]:
    """The same where something is to be said, or whole numbers are written as 3.0."""
    found = np.zeros((3, len(listed)), np.int64)
    seen: set[int] = set()
    columns = (
        values.tolist() if isinstance(values, np.ndarray) else values
        for values in (listed.id, listed.image_id, listed.category_id)
    )
    for position, (given, image_id, category_id) in enumerate(zip(*columns, strict=True)):
        place = f"{source}, annotation number {position}"
        number = position if given is None else whole(given, "id", place)
        row = row_of.get(whole(image_id, "image_id", place))
        if row is None:
            raise DataError(
                f"{source}, annotation {number}: image_id {image_id} is not among the images; add the image "
                "or remove the annotation"
            )
        where = f"{source}, annotation {number} ({images[row].file_name})"
        if whole(category_id, "category_id", where) not in known:
            listed_ids = first_few([str(category) for category in sorted(known)]) or "none"
            remedy = "add the category or remove the annotation"
            if not known:
                remedy = "captions have no categories: give the file of the instances, or add the categories"
            raise DataError(f"{where}: category_id {category_id} is not among the categories ({listed_ids}); {remedy}")
        if number in seen:
            notes.add("annotation id used before (ids are not used further)", where)
        seen.add(number)
        found[:, position] = row, int(category_id), number
    return found[0], found[1], found[2]
