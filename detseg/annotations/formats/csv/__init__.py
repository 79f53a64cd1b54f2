"""CSV files of boxes, landmarks or labels."""

from __future__ import annotations

from pathlib import Path

from detseg.annotations.formats.csv.boxes import find_csv_boxes, read_csv_boxes
from detseg.annotations.formats.csv.csv_file import csv_kind
from detseg.annotations.formats.csv.labels import find_csv_labels, read_csv_labels
from detseg.annotations.formats.csv.landmarks import find_csv_landmarks, read_csv_landmarks
from detseg.annotations.formats.csv.write import write_csv_boxes, write_csv_landmarks
from detseg.annotations.formats.csv.write_labels import write_csv_labels
from detseg.annotations.formats.format import Detected, Format, Layout, ReadOptions, reads_attribute
from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.table import AnnotationTable

_FINDERS = (("boxes", find_csv_boxes), ("landmarks", find_csv_landmarks), ("labels", find_csv_labels))
_READERS = {"boxes": read_csv_boxes, "landmarks": read_csv_landmarks, "labels": read_csv_labels}


def _find(root: Path, files: list[str]) -> Detected | None:
    """The CSV files of the first kind that the folder contains; the kind is the only one of ``parts``."""
    for kind, find in _FINDERS:
        detected = find(root, files)
        if detected is not None:
            return Detected(detected.explanation, ((kind,),))
    return None


def _read(layout: Layout, options: ReadOptions) -> AnnotationTable:
    """Undetermined contents are read as boxes, because the errors of that reader are the most specific."""
    kind = layout.parts[0][0] if layout.parts else csv_kind(layout.path) or "boxes"
    return reads_attribute(_READERS[kind])(layout, options)


def _write(table: AnnotationTable, folder: Path) -> WriteResult:
    """Write the contents of the table: labels, boxes or landmarks."""
    if table.has_class_index:
        return write_csv_labels(table, folder)
    return (write_csv_boxes if table.keypoint_schema is None else write_csv_landmarks)(table, folder)


FORMAT = Format(
    name="csv",
    find=_find,
    read=_read,
    write=_write,
    suffixes=(".csv",),
    help="path,x1,y1,x2,y2,label or path,label,... or path and x, y of landmarks",
)
