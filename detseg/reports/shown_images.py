"""Choose what a sheet shows of a data set: random images, images of each class, the smallest and largest objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detseg.annotations.table import AnnotationTable

PER_CLASS = 4
"""Images of each class in each split."""
MOST_IMAGES = 400
"""On one page: more make it slow to open."""
PER_KIND = 12
"""Problems of one kind."""
EXTREMES = 8
"""Smallest objects, and largest ones."""


@dataclass(frozen=True)
class ShownObject:
    """An object to show.

    Attributes:
        row: of its image in the table.
        index: in its image.
        kind: "smallest" or "largest".
    """

    row: int
    index: int
    kind: str


@dataclass(frozen=True)
class ShownProblem:
    """A problem of an image or an object, to show.

    Attributes:
        severity: "error", "warning" or "note".
        kind: of the problem.
        row: of its image in the table; -1 for a problem of no single image.
        instance: row of its object in the instance columns; -1 for a problem of the image.
        text: what is wrong, and the remedy.
    """

    severity: str
    kind: str
    row: int
    instance: int
    text: str


def first_of_each_kind(problems: Sequence[ShownProblem], per_kind: int = PER_KIND) -> list[ShownProblem]:
    """Return the first problems of each kind that are about an image, at most ``MOST_IMAGES``, in their order."""
    counts: Counter[str] = Counter()
    chosen = []
    for problem in problems:
        if problem.row >= 0 and counts[problem.kind] < per_kind:
            counts[problem.kind] += 1
            chosen.append(problem)
    return chosen[:MOST_IMAGES]


def random_rows(table: AnnotationTable, count: int, seed: int) -> list[int]:
    """Return ``count`` random rows in ascending order."""
    chosen = np.random.default_rng(seed).permutation(len(table))[:count].tolist()
    return sorted(int(row) for row in chosen)


def rows_per_class(table: AnnotationTable, seed: int, *, per_class: int = PER_CLASS) -> dict[int, list[int]]:
    """Return label -> rows of random images with this class, at most ``per_class`` of each split, the rarest first.

    Labels without any image are left out. Of very many classes the rarest are shown, ``MOST_IMAGES`` images in all.
    """
    order = np.random.default_rng(seed).permutation(len(table))
    result: dict[int, list[int]] = {}
    total, present = 0, rows_with_class(table)
    for label in sorted(present, key=lambda label: (len(present[label]), label)):
        chosen: list[int] = []
        for split in dict.fromkeys(table.split.tolist()):
            own = [int(row) for row in present[label] if str(table.split[row]) == split]
            chosen += sorted(sorted(own, key=lambda row: int(order[row]))[:per_class])
        chosen = chosen[: MOST_IMAGES - total]
        total += len(chosen)
        if chosen:
            result[label] = chosen
    return result


def rows_with_class(table: AnnotationTable) -> dict[int, npt.NDArray[np.int64]]:
    """Return label -> rows of all images with this class, for the labels that there are."""
    rows, labels = table.image_labels()
    if not len(rows):
        rows = np.repeat(np.arange(len(table)), table.instances_per_image())
        labels = table.label[table.instance_rows()].astype(np.int64)
    return {int(label): np.unique(rows[labels == label]) for label in np.unique(labels)}


def extreme_objects(table: AnnotationTable, count: int = EXTREMES) -> list[ShownObject]:
    """Return the objects with the smallest and the largest boxes; none twice, crowds and ignored ones left out."""
    objects = table.trained_rows()
    if not len(objects):
        return []
    areas = table.boxes_xywh[objects, 2:].prod(axis=1)
    order = np.argsort(areas, kind="stable")
    starts = {int(row): image for image, row in _object_images(table)}
    smallest, largest = order[:count], order[max(len(order) - count, min(count, len(order))) :][::-1]
    return [
        ShownObject(starts[int(objects[i])], int(objects[i] - table.start[starts[int(objects[i])]]), kind)
        for kind, chosen in (("smallest", smallest), ("largest", largest))
        for i in chosen
    ]


def _object_images(table: AnnotationTable) -> list[tuple[int, int]]:
    """Return (row of the image, row of the object) of all objects."""
    images = np.repeat(np.arange(len(table)), table.instances_per_image())
    return list(zip(images.tolist(), table.instance_rows().tolist(), strict=True))
