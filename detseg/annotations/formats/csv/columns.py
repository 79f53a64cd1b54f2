"""Recognize the columns of a CSV table by their header names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

PATH_COLUMNS = (
    "filename", "file_name", "filepath", "file_path", "path", "image_path", "img_path", "image_filename",
    "image_file_name", "image_name", "img_name", "image_file", "imagefile", "image", "img", "file", "image", "photo",
    "images", "files", "filenames", "name_of_file", "image_id", "imageid", "img_id", "image_uri", "id",
)  # fmt: skip
"""In order of preference: a table may have an ``id`` as well as a ``filename``."""

ID_COLUMNS = ("image_id", "imageid", "img_id", "id")
"""Column names that do not by themselves mean that the cells are file names."""

LABEL_COLUMNS = (
    "class", "label", "class_name", "label_name", "category", "category_name", "cell_type", "labelname", "classname",
    "labels", "classes", "object_class", "object", "species", "type", "name", "class_id", "category_id", "label_id",
)  # fmt: skip

SPLIT_COLUMNS = ("split", "subset", "set", "partition", "fold_name", "dataset", "data_set", "usage")

_PREFIX = r"(?:bbox_|box_|bb_|boundingbox_)?"
_CORNERS = (
    ("xmin", "x_min", "xmin_", "x1", "x_1", "left", "xtl", "x_left", "minx", "min_x"),
    ("ymin", "y_min", "ymin_", "y1", "y_1", "top", "ytl", "y_top", "miny", "min_y"),
    ("xmax", "x_max", "xmax_", "x2", "x_2", "right", "xbr", "x_right", "maxx", "max_x"),
    ("ymax", "y_max", "ymax_", "y2", "y_2", "bottom", "ybr", "y_bottom", "maxy", "max_y"),
)
_SIDES = (("w", "width", "box_width"), ("h", "height", "box_height"))
_TOP_LEFT = (("x", "x_min", "xmin", "left", "x1"), ("y", "y_min", "ymin", "top", "y1"), *_SIDES)
_CENTRE = (("x_center", "xcenter", "x_centre", "center_x", "cx"), ("y_center", "ycenter", "y_centre", "center_y", "cy"),
           *_SIDES)  # fmt: skip


@dataclass(frozen=True)
class BoxColumns:
    """Four column numbers and the box format: "xyxy" corners, "xywh" top-left and size, "cxcywh" centre and size."""

    columns: tuple[int, int, int, int]
    form: str


@dataclass(frozen=True)
class PointColumns:
    """Column numbers of one landmark; ``visibility`` is None without such a column."""

    name: str
    x: int
    y: int
    visibility: int | None


def canonical(header: Sequence[str]) -> list[str]:
    """Header cells normalized for comparison: lower case, words joined by one underscore, no comment sign."""
    return [re.sub(r"[\s.\-/_]+", "_", cell.strip().lstrip("#").strip()).lower() for cell in header]


def column_of(header: Sequence[str], names: Sequence[str]) -> int | None:
    """The column whose canonical name comes first in ``names``; None if there is none."""
    cells = canonical(header)
    return next((cells.index(name) for name in names if name in cells), None)


def size_columns(header: Sequence[str]) -> tuple[int, int] | None:
    """Columns of the image's (height, width), if the table has them and they are not the box size."""
    cells = canonical(header)
    box = box_columns(header)
    used = box.columns if box else ()
    for height, width in (("image_height", "image_width"), ("img_height", "img_width"), ("height", "width")):
        if height in cells and width in cells:
            pair = cells.index(height), cells.index(width)
            if not set(pair) & set(used):
                return pair
    return None


def box_columns(header: Sequence[str]) -> BoxColumns | None:
    """The box columns; corners are tried before sizes: next to ``xmin`` and ``xmax``, ``width`` is the image's."""
    cells = [re.sub(f"^{_PREFIX}", "", cell) or cell for cell in canonical(header)]
    for form, names in (("xyxy", _CORNERS), ("xywh", _TOP_LEFT), ("cxcywh", _CENTRE)):
        matches = [next((cells.index(name) for name in choices if name in cells), None) for choices in names]
        columns = [column for column in matches if column is not None]
        if len(columns) == 4:
            return BoxColumns((columns[0], columns[1], columns[2], columns[3]), form)
    return None


def point_columns(header: Sequence[str]) -> list[PointColumns]:
    """Landmarks in the order of their x columns: ``<name>_x, <name>_y`` or ``x_<name>, y_<name>``.

    ``<name>_v``, ``<name>_vis``, ``<name>_visible`` or ``<name>_visibility`` (or with ``v_`` before the name) is the
    visibility. Box columns are not landmarks. Columns called just ``x, y`` are a single landmark, "point".
    """
    cells = canonical(header)
    box = box_columns(header)
    used = set(box.columns) if box else set()
    names = [re.sub(r"[\s/]+", "_", cell.strip()) for cell in header]
    points = []
    for x, cell in enumerate(cells):
        if x in used:
            continue
        if match := re.fullmatch(r"(.+?)_x", cell):
            form, stem, name = "{0}_{1}", match[1], re.sub(r"[_.\-]+[xX]$", "", names[x])
        elif match := re.fullmatch(r"x_(.+)", cell):
            form, stem, name = "{1}_{0}", match[1], re.sub(r"^[xX][_.\-]+", "", names[x])
        else:
            continue
        y_name = form.format(stem, "y")
        if y_name not in cells or cells.index(y_name) in used:
            continue
        visibility_names = [form.format(stem, word) for word in ("v", "vis", "visible", "visibility")]
        visibility = next((cells.index(word) for word in visibility_names if word in cells), None)
        points.append(PointColumns(name, x, cells.index(y_name), visibility))
    if not points and box is None and "x" in cells and "y" in cells:
        return [PointColumns("point", cells.index("x"), cells.index("y"), None)]
    return points
