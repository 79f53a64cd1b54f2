"""Write results as a table in CSV, image by image, from ``predictions.jsonl``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from detseg.classes import ClassMap, LabelField
from detseg.inference.prediction_files import read_results
from detseg.keypoints import KeypointSchema
from detseg.runtime.files import atomic_write

FILE = "predictions.csv"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def write_csv(
    folder: Path,
    class_map: ClassMap,
    *,
    is_classifier: bool,
    label_fields: Sequence[LabelField] = (),
    schema: KeypointSchema | None = None,
    second_fields: Sequence[str] = (),
) -> None:
    """Write ``predictions.csv``, atomically.

    Of a detector a row per detection, with the columns filename, width, height, class, xmin, ymin, xmax, ymax, score
    (as the boxes.csv of ``convert``), area of masks, x, y and score of each keypoint, and class and probability of a
    chained classifier; an image without detections has a row with empty cells. Of a classifier a row per image, with
    class and probability, and a column with the probability of each class; of one with several label fields these for
    each field. Images that failed have no row.

    Args:
        second_fields: label fields of a chained classifier; ("",) if it has one class per object; empty without one.
    """
    if is_classifier:
        header, rows = _class_header(class_map, label_fields), _class_rows(folder)
    else:
        points = [
            f"{'_'.join(name.split())}_{axis}"
            for name in (schema.names if schema else ())
            for axis in ("x", "y", "score")
        ]
        second = [f"{field or 'second'}_{what}" for field in second_fields for what in ("class", "probability")]
        header = ["filename", "width", "height", "class", *_CORNERS, "score", "area", *points, *second]
        rows = _detection_rows(folder, len(points), second_fields)
    with atomic_write(folder / FILE) as file:
        for row in chain([header], rows):
            file.write(_line(row))


def _line(cells: Sequence[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _class_header(class_map: ClassMap, label_fields: Sequence[LabelField]) -> list[str]:
    start = ["filename", "width", "height"]
    if not label_fields:
        return [*start, "class", "probability", *(f"p({name})" for name in class_map.names)]
    for field in label_fields:
        start += [
            field.name,
            f"{field.name} probability",
            *(f"p({field.name}={name})" for name in field.class_map.names),
        ]
    return start


def _class_rows(folder: Path) -> Iterator[list[Any]]:
    for line in read_results(folder):
        row = [line["file_name"], line["width"], line["height"]]
        for result in line["results"]:
            row += [result["category"], result["score"], *result["probabilities"]]
        yield row


def _detection_rows(folder: Path, points: int, second_fields: Sequence[str]) -> Iterator[list[Any]]:
    for line in read_results(folder):
        start = [line["file_name"], line["width"], line["height"]]
        for result in line["results"]:
            x, y, width, height = result["bbox"]
            row = [*start, result["category"], x, y, x + width, y + height, result["score"], result.get("area", "")]
            row += result["keypoints"] if points else []
            yield row + _second(result, second_fields)
        if not line["results"]:
            yield [*start, *[""] * (7 + points + 2 * len(second_fields))]


def _second(result: Mapping[str, Any], fields: Sequence[str]) -> list[Any]:
    """The classes of a chained classifier."""
    cells: list[Any] = []
    for field in fields:
        value = result["classification"]
        part = value["fields"][field] if field else value
        cells += [part["class_name"], part["probability"]]
    return cells
