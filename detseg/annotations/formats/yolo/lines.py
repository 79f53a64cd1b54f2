"""Parse the lines of a YOLO label file: boxes, polygons, poses."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detseg.annotations.formats.shared.text_file import parse_finite, read_text
from detseg.errors import DataError

Float64 = npt.NDArray[np.float64]

ROUNDING = 1e-6
"""Most tools write six decimals: a point beyond the border by at most this fraction of the side is on the border."""

LOWEST, HIGHEST = -1.0, 2.0
"""Coordinates outside this range are not normalized; those inside it but outside 0..1 are clipped and noted."""


@dataclass(frozen=True)
class YoloObject:
    """One line, in coordinates normalized by width and height.

    Attributes:
        class_number: as in the file, starting at 0.
        box: center x, center y, width, height; None if the line is a polygon.
        ring: [V, 2] points of a polygon; None for a box.
        keypoints: [P, 3] x, y, visibility; None if the line has none.
        where: file and line.
    """

    class_number: int
    box: tuple[float, float, float, float] | None
    ring: Float64 | None
    keypoints: Float64 | None
    where: str


def read_lines(path: Path, name: str, kpt_shape: tuple[int, int] | None) -> list[YoloObject]:
    """Read one label file; empty lines are ignored.

    Args:
        name: name of the file in messages.
        kpt_shape: number of keypoints and values per keypoint; None for boxes and polygons.

    Raises:
        DataError: a line in another format (predictions with a score, rotated boxes with a class name), with the
            wrong number of fields, or with numbers that are not finite or not normalized.
        OSError: the file cannot be read.
    """
    text = read_text(path, name)
    return [
        _object(fields, f"{name}, line {number}", kpt_shape)
        for number, line in enumerate(text.splitlines(), 1)
        if (fields := line.split())
    ]


def starts_with_numbers(path: Path) -> bool:
    """Whether the first line of a file starts with five numbers; False for an empty file."""
    fields = _first_line(path)
    return len(fields) >= 5 and all(_is_number(field) for field in fields[:5])


def starts_with_yolo_label(path: Path) -> bool:
    """Whether the first line of a file is a YOLO label: a class number and normalized coordinates."""
    fields = _first_line(path)
    if len(fields) < 5 or not fields[0].isdigit() or not all(map(_is_number, fields)):
        return False
    return all(LOWEST <= float(field) <= HIGHEST for field in fields[1:5])


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


def _object(fields: list[str], where: str, kpt_shape: tuple[int, int] | None) -> YoloObject:
    if len(fields) >= 9 and all(map(_is_number, fields[:8])) and not _is_number(fields[8]):
        raise DataError(
            f"{where}: four corners and a class name, the format of rotated boxes (YOLO OBB, DOTA), which is not "
            "supported; export axis-aligned boxes or polygons"
        )
    class_number = _class_number(fields[0], where)
    values = [_number(field, where) for field in fields[1:]]
    if kpt_shape is not None and len(values) == 4 + kpt_shape[0] * kpt_shape[1]:
        _check_normalized([*values[:4], *(v for i, v in enumerate(values[4:]) if i % kpt_shape[1] < 2)], where)
        return YoloObject(class_number, _box(values), None, _keypoints(values[4:], kpt_shape, where), where)
    if kpt_shape is not None and len(values) != 4:
        number, size = kpt_shape
        raise DataError(
            f"{where}: {len(fields)} fields, expected {5 + number * size} (class, box, {number} points of {size} "
            "numbers, as in kpt_shape) or 5 (no points); correct the line or kpt_shape"
        )
    if len(values) == 5:
        raise DataError(
            f"{where}: 6 fields; class, x, y, width, height and a score are predictions, not labels (labels have 5): "
            "use the ground-truth labels, or remove the last number"
        )
    if len(values) == 4:
        _check_normalized(values, where)
        return YoloObject(class_number, _box(values), None, None, where)
    if len(values) < 4:
        raise DataError(
            f"{where}: {len(fields)} fields; a box has 5 (class, center x, y, width, height), a polygon 7 or more: "
            "complete or remove the line"
        )
    if len(values) % 2:
        raise DataError(
            f"{where}: {len(values)} numbers after the class; a polygon needs an even number, x and y of each point "
            "(poses need kpt_shape in data.yaml; a polygon followed by a score is a prediction): complete the line"
        )
    _check_normalized(values, where)
    return YoloObject(class_number, None, np.array(values, np.float64).reshape(-1, 2), None, where)


def _class_number(field: str, where: str) -> int:
    try:
        value = float(field)
    except ValueError:
        raise DataError(
            f"{where}: the class {field!r} is not a number; YOLO lines start with the class number of data.yaml"
        ) from None
    if not (isfinite(value) and value.is_integer() and 0 <= value < 2**31):
        raise DataError(f"{where}: the class {field} is not a whole number of at least 0; correct it")
    return int(value)


def _number(field: str, where: str) -> float:
    value = parse_finite(field)
    if value is None:
        raise DataError(f"{where}: {field[:40]!r} is not a finite number; correct or remove the line")
    return value


def _check_normalized(values: list[float], where: str) -> None:
    for value in values:
        if not LOWEST <= value <= HIGHEST:
            raise DataError(
                f"{where}: {value:g} is not normalized; YOLO coordinates are fractions (0 to 1) of the image's width "
                "and height: divide pixels by them"
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
        raise DataError(
            f"{where}: a keypoint's visibility is {invalid:g}; labels have 0, 1 or 2 (a score is a prediction)"
        )
    return points


def _first_line(path: Path) -> list[str]:
    with path.open("rb") as file:
        head = file.read(4096).decode("utf-8-sig", "replace")
    return next((fields for line in head.splitlines() if (fields := line.split())), [])


def _is_number(field: str) -> bool:
    return parse_finite(field) is not None
