"""Read CSV files of landmarks: one line per instance, two or three columns per landmark."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detseg.annotations.formats.csv.boxes import CLASS_FILES, BoxRows, box_xywh, read_class_list, read_columns
from detseg.annotations.formats.csv.columns import PointColumns, box_columns, point_columns
from detseg.annotations.formats.csv.csv_file import CsvFile, csv_kind, read_csv
from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.shared.annotation_files import annotation_files, locate_annotation_files, summary_line
from detseg.annotations.formats.shared.shapes import ShapeAnnotation, ShapeInstance, shapes_table
from detseg.annotations.instance_box import landmark_box
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.keypoints import keypoint_schema

_EMPTY = ("", "nan", "na", "none", "null")


def find_csv_landmarks(root: Path, files: list[str]) -> Detected | None:
    """One line that lists the CSV files of landmarks (see ``csv_kind``) at the top, in annotations/, or in train/,
    val/, test/; None if there are none."""
    return summary_line("CSV landmarks", annotation_files(root, files, ".csv", _is_landmarks))


def read_csv_landmarks(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    class_attribute: str | None = None,
    bad_instances: str = "drop",
    split: str = "",
    follow_links: bool = False,
    missing_images: str = "error",
) -> AnnotationTable:
    """Read CSV files of landmarks in pixels: ``filename, left_eye_x, left_eye_y, ...``, one line per instance.

    A landmark is two columns ``<name>_x, <name>_y`` (or ``x_<name>, y_<name>``) and optionally ``<name>_v``, COCO's
    visibility: 0 not labelled, 1 hidden, 2 visible (the default). Empty cells, NaN and -1, -1 mean not labelled.
    Columns of a box and of a class are optional. The default box is the one around the labelled landmarks, at least
    ``MIN_SIDE`` wide and high (widened around its centre, noted), and the default class is "object". A line without
    landmarks and box makes a negative image, or with a class, an object that is lost (noted).

    Arguments and errors are those of :class:`detseg.annotations.formats.format.Reader`; ``data`` is the
    folder or the CSV file. Splits are those in the split column, or in the names of files and folders.
    """
    base, files = locate_annotation_files(Path(data), split, ".csv", _is_landmarks, follow_links)
    notes = RepairLog()
    annotations: list[ShapeAnnotation] = []
    names: list[str] = []
    for file, file_split in files:
        table = read_csv(base / file, file)
        points = point_columns(table.header or [])
        if not points:
            raise DataError(f"{file}: no landmark columns; name them <name>_x, <name>_y in the first line")
        names = names or [point.name for point in points]
        if [point.name for point in points] != names:
            raise DataError(
                f"{file}: landmarks {', '.join(point.name for point in points)}, but {files[0][0]} has "
                f"{', '.join(names)}; give all files the same columns"
            )
        annotations.extend(_read_file(table, points, file, file_split, split == "", class_attribute, notes))
    return shapes_table(
        annotations,
        base,
        images,
        source=files[0][0] if len(files) == 1 else base.name,
        notes=notes,
        class_list=None if class_attribute else read_class_list(base, [file for file, _ in files]),
        classes=classes,
        bad_instances=bad_instances,
        follow_links=follow_links,
        missing_images=missing_images,
        schema=keypoint_schema(names),
    )


def _is_landmarks(path: Path) -> bool:
    return path.name.lower() not in CLASS_FILES and csv_kind(path) == "landmarks"


def _read_file(
    file: CsvFile,
    points: list[PointColumns],
    name: str,
    split: str,
    use_split_column: bool,
    class_attribute: str | None,
    notes: RepairLog,
) -> list[ShapeAnnotation]:
    box = box_columns(file.header or [])
    used = [*(box.columns if box else ())]
    for point in points:
        used += [point.x, point.y, *([] if point.visibility is None else [point.visibility])]
    folder = name.rpartition("/")[0]
    columns = read_columns(file, used, class_attribute, notes)
    rows = BoxRows(file, columns, folder, split, use_split_column, notes)
    for line, cells in file.rows:
        image = rows.image(line, cells)
        where = file.where(line)
        keypoints = np.array([_point(file, line, cells, point, notes) for point in points])
        if box and any(cells[column] for column in box.columns):
            xywh = [*box_xywh(file, line, cells, box)]
        elif (keypoints[:, 2] > 0).any():
            xywh = landmark_box(keypoints, where, notes)
        elif rows.columns.label is not None and rows.label(cells):
            notes.add("instance without landmarks and box left out", f"{where} ({image.image.name})")
            image.lost.append(rows.label(cells))
            continue
        else:
            notes.add("line without landmarks read as a negative image", f"{where} ({image.image.name})")
            continue
        image.instances.append(ShapeInstance(rows.label(cells), where, xywh, keypoints=keypoints))
    return rows.images


def _point(
    file: CsvFile, line: int, cells: list[str], point: PointColumns, notes: RepairLog
) -> tuple[float, float, float]:
    """x, y, visibility; zeros for a landmark that is not labelled."""
    missing = [cells[column].lower() in _EMPTY for column in (point.x, point.y)]
    if any(missing):
        if not all(missing):
            notes.add("landmark with only one coordinate read as not labelled", f"{file.where(line)}, {point.name}")
        return 0.0, 0.0, 0.0
    x = file.number(cells[point.x], f"{point.name} x", line)
    y = file.number(cells[point.y], f"{point.name} y", line)
    visibility = 2.0
    if point.visibility is not None and cells[point.visibility].lower() not in _EMPTY:
        visibility = file.number(cells[point.visibility], f"{point.name} visibility", line)
        if visibility not in (0, 1, 2):
            raise DataError(
                f"{file.where(line)}: visibility {visibility:g} of {point.name}; use 0 (not labelled), 1 (hidden) or "
                "2 (visible)"
            )
    return (0.0, 0.0, 0.0) if (x, y) == (-1, -1) or not visibility else (x, y, visibility)
