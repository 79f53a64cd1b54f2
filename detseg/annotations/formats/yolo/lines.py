"""Parse the lines of a YOLO label file: boxes, polygons, poses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detseg.annotations.formats.shared.text_file import parse_finite, read_text
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.media.files import open_file

Float64 = npt.NDArray[np.float64]

ROUNDING = 1e-6
"""Most tools write six decimals: a point beyond the border by at most this fraction of the side is on the border."""

LOWEST, HIGHEST = -1.0, 2.0
"""Coordinates outside this range are not normalized; those inside it but outside 0..1 are clipped and noted."""


_COMMA = re.compile(r"[,;]")
_DECIMAL_COMMA = re.compile(r"-?\d+(,\d+)?")


@dataclass(frozen=True)
class YoloObject:
    """One line, in coordinates normalized by width and height.

    Attributes:
        class_number: as in the file, starting at 0.
        box: center x, center y, width, height; None if the line is a polygon.
        ring: [V, 2] points of a polygon; None for a box.
        keypoints: [P, 3] x, y, visibility; None if the line has none.
        where: file and line.
        sixth: the number after a box, which is no part of a label; None if there is none.
    """

    class_number: int
    box: tuple[float, float, float, float] | None
    ring: Float64 | None
    keypoints: Float64 | None
    where: str
    sixth: float | None = None


class LineError(DataError):
    """A line that cannot be read; ``kind`` is equal for lines with the same problem."""

    def __init__(self, where: str, kind: str, text: str) -> None:
        super().__init__(f"{where}: {text}")
        self.kind = kind


def read_lines(
    path: Path, name: str, kpt_shape: tuple[int, int] | None, notes: RepairLog, problems: list[LineError]
) -> list[YoloObject]:
    """Read one label file; empty lines are ignored.

    Args:
        name: name of the file in messages.
        kpt_shape: number of keypoints and values per keypoint; None for boxes and polygons.
        notes: lines with commas are noted here.
        problems: lines in another format (rotated boxes with a class name), with the wrong number of fields, or with
            numbers that are not finite or not normalized are added here, and left out.

    Raises:
        DataError: the file is not UTF-8 text.
        OSError: it cannot be read.
    """
    objects = []
    for number, line in enumerate(read_text(path, name).splitlines(), 1):
        fields, reading = _fields(line)
        where = f"{name}, line {number}"
        if not fields:
            continue
        if reading:
            notes.add(reading, where)
        try:
            objects.append(_object(fields, where, kpt_shape))
        except LineError as error:
            problems.append(error)
    return objects


def raise_problems(problems: Sequence[LineError], source: str) -> None:
    """Raise a DataError with all lines that cannot be read: the number and the first one of each kind."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        kinds = list(dict.fromkeys(problem.kind for problem in problems))
        examples = [next(problem for problem in problems if problem.kind == kind) for kind in kinds]
        counts = [sum(problem.kind == kind for problem in problems) for kind in kinds]
        lines = [f"{count} x {kind}, such as {text}" for count, kind, text in zip(counts, kinds, examples, strict=True)]
        raise DataError(f"{source}: {len(problems)} lines cannot be read: {'; '.join(lines)}")


def check_sixth(objects: Sequence[YoloObject], notes: RepairLog) -> None:
    """Note the track ids after boxes, whole numbers, which labels of videos have.

    Raises:
        DataError: the numbers are not track ids but scores: the files are predictions.
    """
    longer = [item for item in objects if item.sixth is not None]
    numbers = [item.sixth for item in longer if item.sixth is not None]
    if longer and all(number.is_integer() for number in numbers) and max(numbers) > 1:
        for item in longer:
            notes.add("track id after the box ignored", item.where)
    elif longer:
        raise DataError(
            f"{longer[0].where}: 6 fields; class, x, y, width, height and a score are predictions, not labels (labels "
            f"have 5), in {len(longer)} of {len(objects)} lines: use the ground-truth labels, or remove the last number"
        )


def starts_with_numbers(path: Path) -> bool:
    """Whether the first line of a file starts with five numbers; False for an empty file."""
    fields = _first_line(path)
    return len(fields) >= 5 and all(_is_number(field) for field in fields[:5])


def starts_with_yolo_label(path: Path) -> bool:
    """Whether the first line of a file is a YOLO label: a class number (or name) and normalized coordinates."""
    fields = _first_line(path)
    if len(fields) < 5 or not all(map(_is_number, fields[1:])):
        return False
    if not fields[0].isdigit() and (len(fields) != 5 or _is_number(fields[0])):
        return False  # a class name instead of the number is reported by the reader
    return all(LOWEST <= float(field) <= HIGHEST for field in fields[1:5])


def starts_with_pixels(path: Path) -> bool:
    """Whether the first line of a file is a class number and a box in pixels, which the reader rejects."""
    fields = _first_line(path)
    return len(fields) == 5 and fields[0].isdigit() and int(fields[0]) < 1000 and all(map(_is_number, fields))


def pixel_box(box: tuple[float, float, float, float], size_hw: tuple[int, int]) -> tuple[float, float, float, float]:
    """Convert a normalized center and size to x, y, width, height in pixels."""
    cx, cy, w, h = box
    x, width = _pixels(cx, w, size_hw[1])
    y, height = _pixels(cy, h, size_hw[0])
    return x, y, width, height


def pixel_points(points: Float64, size_hw: tuple[int, int]) -> Float64:
    """Convert normalized points, float64 [V, 2], to pixels."""
    points = np.where((points < 0) & (points >= -ROUNDING), 0.0, points)
    points = np.where((points > 1) & (points <= 1 + ROUNDING), 1.0, points)
    return points * np.array([size_hw[1], size_hw[0]], np.float64)


def _pixels(center: float, size: float, side: int) -> tuple[float, float]:
    length = size * side  # convert to pixels first: 0.35 - 0.3 / 2 is not 0.2 in floating point, 3.5 - 3 / 2 is 2
    low, high = center * side - length / 2, center * side + length / 2
    if -ROUNDING * side <= low < 0:
        low, length = 0.0, high
    if side < high <= side * (1 + ROUNDING):
        length = side - low
    return low, length


def _fields(line: str) -> tuple[list[str], str]:
    """The numbers of a line as texts, and how they were read if commas or semicolons are among them."""
    fields = line.split()
    if not _COMMA.search(line):
        return fields, ""
    if len(fields) >= 5 and all(map(_DECIMAL_COMMA.fullmatch, fields)):
        return [field.replace(",", ".") for field in fields], "line with decimal commas read"
    if ";" in line:
        fields = [field for field in re.split(r"[\s;]+", line) if field]
        return [field.replace(",", ".") for field in fields], "line with semicolons between the numbers read"
    return [field for field in re.split(r"[\s,]+", line) if field], "line with commas between the numbers read"


def _object(fields: list[str], where: str, kpt_shape: tuple[int, int] | None) -> YoloObject:
    if len(fields) >= 9 and all(map(_is_number, fields[:8])) and not _is_number(fields[8]):
        raise LineError(
            where,
            "rotated boxes",
            "four corners and a class name, the format of rotated boxes (YOLO OBB, DOTA), which is not "
            "supported; export axis-aligned boxes or polygons",
        )
    class_number = _class_number(fields[0], where)
    values = [_number(field, where) for field in fields[1:]]
    if kpt_shape is not None and len(values) == 4 + kpt_shape[0] * kpt_shape[1]:
        _check_normalized([*values[:4], *(v for i, v in enumerate(values[4:]) if i % kpt_shape[1] < 2)], where)
        return YoloObject(class_number, _box(values), None, _keypoints(values[4:], kpt_shape, where), where)
    if kpt_shape is not None and len(values) != 4:
        number, size = kpt_shape
        raise LineError(
            where,
            "wrong number of fields",
            f"{len(fields)} fields, expected {5 + number * size} (class, box, {number} points of {size} "
            "numbers, as in kpt_shape) or 5 (no points); correct the line or kpt_shape",
        )
    if len(values) == 5:
        _check_normalized(values[:4], where)
        return YoloObject(class_number, _box(values), None, None, where, values[4])
    if len(values) == 6 and values[5] > 1 and values[5].is_integer() and all(0 <= value <= 1 for value in values[:5]):
        raise LineError(
            where,
            "predictions of a tracker",
            "7 fields; class, x, y, width, height, a score and a track id are predictions, not labels (labels have 5): "
            "use the ground-truth labels, or remove the last two numbers",
        )
    if len(values) == 4:
        _check_normalized(values, where)
        return YoloObject(class_number, _box(values), None, None, where)
    if len(values) < 4:
        raise LineError(
            where,
            "too few fields",
            f"{len(fields)} fields; a box has 5 (class, center x, y, width, height), a polygon 7 or more: "
            "complete or remove the line",
        )
    if len(values) % 2:
        raise LineError(
            where,
            "odd number of coordinates",
            f"{len(values)} numbers after the class; a polygon needs an even number, x and y of each point "
            "(poses need kpt_shape in data.yaml; a polygon followed by a score is a prediction): complete the line",
        )
    _check_normalized(values, where)
    return YoloObject(class_number, None, np.array(values, np.float64).reshape(-1, 2), None, where)


def _class_number(field: str, where: str) -> int:
    try:
        value = float(field)
    except ValueError:
        raise LineError(
            where,
            "class that is not a number",
            f"the class {field[:40]!r} is not a number; YOLO lines start with the class number of data.yaml: write the "
            "position of the name in its list, from 0",
        ) from None
    if not (isfinite(value) and value.is_integer() and 0 <= value < 2**31):
        raise LineError(
            where,
            "class that is not a number",
            f"the class {field[:40]} is not a whole number of at least 0; correct it",
        )
    return int(value)


def _number(field: str, where: str) -> float:
    value = parse_finite(field)
    if value is None:
        raise LineError(
            where,
            "text or a number that is not finite",
            f"{field[:40]!r} is not a finite number; correct or remove the line",
        )
    return value


def _check_normalized(values: list[float], where: str) -> None:
    for value in values:
        if not LOWEST <= value <= HIGHEST:
            raise LineError(
                where,
                "coordinate that is not normalized",
                f"{value:g} is not normalized; YOLO coordinates are fractions (0 to 1) of the image's width "
                "and height: divide pixels by them",
            )


def _box(values: list[float]) -> tuple[float, float, float, float]:
    return values[0], values[1], values[2], values[3]


def _keypoints(values: list[float], kpt_shape: tuple[int, int], where: str) -> Float64:
    """[P, 3]; with two numbers per point, (0, 0) means "not labelled" and any other point is visible."""
    points = np.array(values, np.float64).reshape(kpt_shape)
    if kpt_shape[1] == 2:
        return np.column_stack([points, np.where(points.any(axis=1), 2.0, 0.0)])
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        invalid = points[~np.isin(points[:, 2], (0, 1, 2)), 2][0]
        raise LineError(
            where,
            "visibility",
            f"a keypoint's visibility is {invalid:g}; labels have 0, 1 or 2 (a score is a prediction)",
        )
    return points


def _first_line(path: Path) -> list[str]:
    with open_file(path) as file:
        head = file.read(4096).decode("utf-8-sig", "replace")
    return next((fields for line in head.splitlines() if (fields := _fields(line)[0])), [])


def _is_number(field: str) -> bool:
    return parse_finite(field) is not None
