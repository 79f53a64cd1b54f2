"""Draw images and objects of a data set for its contact sheet and its page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.table import AnnotationTable, Record
from detseg.boxes import xywh_to_xyxy
from detseg.errors import DataError
from detseg.images import decode_image
from detseg.pixel_values import Range
from detseg.reports.draw import draw
from detseg.reports.figure import fitted
from detseg.reports.shown_images import (
    MOST_IMAGES,
    ShownObject,
    ShownProblem,
    extreme_objects,
    first_of_each_kind,
    random_rows,
    rows_per_class,
    rows_with_class,
)
from detseg.runtime.reporter import Reporter, silent, terminal

UInt8 = npt.NDArray[np.uint8]

CROP = 320
"""Longest side in pixels of the drawing of an object."""
CONTEXT = 1.0
"""What is shown around an object on each side, as a share of its longer side."""
LEAST_CROP = 32
NOTHING = 224
"""Grey level in place of an image that cannot be decoded."""


@dataclass(frozen=True)
class Card:
    """A drawn image or object.

    Attributes:
        image: uint8 [H, W, 3] with its annotations.
        name: of the image file.
        title: what it is an example of: a class name, "smallest", "largest", or "".
        labels: of its objects, or of the image.
        split: "train", "val", "test" or "".
        detail: one more line, such as the size of an object.
        problem: kind of the problem that it shows; "" for none. ``severity``: of the problem.
    """

    image: UInt8
    name: str
    title: str = ""
    labels: tuple[int, ...] = field(default=())
    split: str = ""
    detail: str = ""
    problem: str = ""
    severity: str = ""

    @property
    def caption(self) -> str:
        """One line of text for the contact sheet."""
        return ": ".join(filter(None, [", ".join(filter(None, [self.title, self.detail])), self.name]))


def image_cards(
    table: AnnotationTable,
    count: int,
    seed: int,
    *,
    per_class: bool = False,
    value_range: Range | None = None,
    reporter: Reporter | None = None,
) -> list[Card]:
    """Draw random images; with ``per_class`` instead images of each class in each split, the rarest class first.

    Images that cannot be decoded are left out: they are among the findings.

    Args:
        count: number of random images.
        seed: that selects the images.
        value_range: of images with more than 8 bits per channel.
        reporter: as in :func:`~detseg.reports.draw.draw`.
    """
    if per_class:
        rows, classes = rows_per_class(table, seed), len(rows_with_class(table))
        if len(rows) < classes:
            line = f"the sheet shows the {len(rows)} rarest of {classes} classes: more than {MOST_IMAGES} images"
            (reporter or terminal()).line(line)
        chosen = [(row, table.class_map.name_of(label)) for label, own in rows.items() for row in own]
    else:
        chosen = [(row, "") for row in random_rows(table, count, seed)]
    skeleton = table.keypoint_schema.skeleton if table.keypoint_schema else ()
    cards = []
    for row, title in chosen:
        record = table[row]
        image = _decoded(record, value_range)
        if image is not None:
            drawn = draw(image, record, table.class_map, skeleton=skeleton, reporter=reporter)
            cards.append(Card(drawn, record.name, title, _labels(table, row), record.split))
    return cards


def object_cards(table: AnnotationTable, *, value_range: Range | None = None) -> list[Card]:
    """Draw the smallest and the largest objects, cut out with what is around them."""
    return list(_object_cards(table, extreme_objects(table), value_range))


def _object_cards(table: AnnotationTable, objects: Sequence[ShownObject], value_range: Range | None) -> Iterator[Card]:
    for shown in objects:
        record = table[shown.row]
        image = _decoded(record, value_range)
        if image is None:
            continue
        label, (_, _, width, height) = int(record.labels[shown.index]), record.boxes_xywh[shown.index].tolist()
        detail = f"{width:.3g} x {height:.3g} pixels, {table.class_map.name_of(label)}"
        drawn = _cut_out(image, record, shown.index, table)
        yield Card(drawn, record.name, shown.kind, (label,), record.split, detail)


def problem_cards(
    table: AnnotationTable, problems: Sequence[ShownProblem], *, value_range: Range | None = None
) -> list[Card]:
    """Draw the images and objects with problems, the first ones of each kind.

    An object is cut out, unless it has an outline, which may be elsewhere. An image that cannot be decoded is a grey
    area.
    """
    skeleton = table.keypoint_schema.skeleton if table.keypoint_schema else ()
    cards = []
    for problem in first_of_each_kind(problems):
        record = table[problem.row]
        image = _decoded(record, value_range)
        index = problem.instance - int(table.start[problem.row])
        if image is None or image.shape[:2] != record.size_hw:
            drawn = np.full((CROP * 3 // 4, CROP, 3), NOTHING, np.uint8)
        elif 0 <= index < len(record) and record.segmentations[index] is None:
            drawn = _cut_out(image, record, index, table)
        else:
            drawn = draw(image, record, table.class_map, skeleton=skeleton, reporter=silent())
        labels = _labels(table, problem.row)
        cards.append(Card(drawn, record.name, "", labels, record.split, problem.text, problem.kind, problem.severity))
    return cards


def _cut_out(image: UInt8, record: Record, index: int, table: AnnotationTable) -> UInt8:
    """Return an object with its surroundings, enlarged, and its box."""
    box = xywh_to_xyxy(record.boxes_xywh[index])
    margin = max(CONTEXT * float((box[2:] - box[:2]).max()), LEAST_CROP / 2)
    height, width = image.shape[:2]
    left, top = (max(int(value - margin), 0) for value in box[:2])
    right, bottom = (min(int(value + margin) + 1, side) for value, side in zip(box[2:], (width, height), strict=True))
    part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    shown = fitted(part, CROP)
    scale = np.array([shown.shape[1] / part.shape[1], shown.shape[0] / part.shape[0]] * 2)
    boxes = ((box - np.array([left, top, left, top])) * scale)[None]
    content: dict[str, Any] = {"boxes": boxes, "labels": record.labels[index : index + 1]}
    return draw(shown, content, table.class_map, instances=[index], reporter=silent())


def _decoded(record: Record, value_range: Range | None) -> UInt8 | None:
    try:
        return np.asarray(decode_image(record.path, value_range=value_range), np.uint8)
    except (DataError, OSError):
        return None  # already reported in the findings


def _labels(table: AnnotationTable, row: int) -> tuple[int, ...]:
    """Return the labels in an image, each once."""
    objects = table.label[int(table.start[row]) : int(table.stop[row])]
    first = np.cumsum([1, *(len(field) for field in table.fields)])
    classes = [
        int(index) + int(offset) for index, offset in zip(table.class_index[row], first, strict=False) if index >= 0
    ]
    return tuple(sorted({*classes, *(int(label) for label in objects)}))
