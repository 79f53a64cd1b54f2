"""Clean sets in every format: the table is the stored one, and nothing is noted.

clean_sets.json holds a digest of all columns. Print the new ones with ``python -m pytest -k clean_sets -s`` and
``DETSEG_PRINT_DIGESTS=1`` after an intended change.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from detseg.annotations import AnnotationTable, read
from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.all_formats import format_named
from detseg.annotations.table import IMAGE_COLUMNS, INSTANCE_COLUMNS
from detseg.classes import ClassMap
from detseg.keypoints import keypoint_schema
from detseg.synthetic.demo.render import demo_folder

DIGESTS = json.loads(Path(__file__).with_name("clean_sets.json").read_text(encoding="utf-8"))
NAMES = ("train/images/a.png", "train/images/b é.png", "val/images/c.png")
HW = (30, 40)


def digest(table: AnnotationTable) -> str:
    """Digest of all columns and classes; floats are rounded to 1e-6."""
    parts: list[object] = [table.class_map.names, table.class_map.category_ids]
    for name in (*IMAGE_COLUMNS, *INSTANCE_COLUMNS):
        parts.append((name, rounded(getattr(table, name))))
    for row in range(len(table.label)):
        mask = table.segmentation[row]
        parts.append([rounded(ring) for ring in mask] if isinstance(mask, list) else repr(mask))
    parts.append(None if table.keypoints is None else rounded(table.keypoints))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def rounded(column: npt.NDArray[np.generic]) -> object:
    return (np.round(column.astype(np.float64), 6) + 0.0 if column.dtype.kind == "f" else column).tolist()


def blank(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.zeros(HW, np.uint8))[1].tobytes())


def boxes(folder: Path, points: int = 0) -> AnnotationTable:
    schema = keypoint_schema([f"p{number}" for number in range(points)]) if points else None
    builder = TableBuilder(ClassMap.from_names(["ant", "bee"]), folder, source="test", keypoint_schema=schema)
    for number, name in enumerate(NAMES):
        builder.add_image(name, HW, split=name.partition("/")[0])
        for label in (1, 2):
            x, y = 2.0 + number, 3.0 * label
            keypoints = np.array([[x + 1, y + 1, 2.0]] * points) if points else None
            builder.add_instance([x, y, 10.5, 8.25], label, keypoints=keypoints)
    return builder.build()


def polygons(folder: Path) -> AnnotationTable:
    builder = TableBuilder(ClassMap.from_names(["ant", "bee"]), folder, source="test")
    for number, name in enumerate(NAMES):
        builder.add_image(name, HW, split=name.partition("/")[0])
        builder.add_instance(None, 1 + number % 2, segmentation=[np.array([[2.0, 3], [12.5, 3], [11, 9 + number]])])
    return builder.build()


def labels(folder: Path) -> AnnotationTable:
    builder = TableBuilder(ClassMap.from_names(["ant", "bee"]), folder, source="test")
    for number, name in enumerate(NAMES):
        builder.add_image(name, HW, split=name.partition("/")[0], class_index=number % 2)
    return builder.build()


def class_folders(folder: Path) -> Path:
    for name in ("ant/a.png", "ant/b.png", "bee/c.png"):
        blank(folder / name)
    return folder


def mask_folders(folder: Path) -> Path:
    for number, name in enumerate(("a", "b")):
        blank(folder / "images" / f"{name}.png")
        mask = np.zeros(HW, np.uint8)
        mask[3:9, 4 + number : 12], mask[15:20, 10:30] = 1, 2
        (folder / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask)
    return folder


MADE: dict[str, tuple[str, Callable[[Path], AnnotationTable]]] = {
    **{f"{name} boxes": (name, boxes) for name in ("coco", "voc", "yolo", "csv", "labelme", "cvat", "via")},
    **{f"{name} polygons": (name, polygons) for name in ("coco", "yolo", "labelme", "cvat", "via")},
    **{f"{name} keypoints": (name, lambda folder: boxes(folder, 2)) for name in ("coco", "yolo", "csv", "cvat")},
    "csv labels": ("csv", labels),
}


def make(case: str, folder: Path) -> Path:
    if case == "demo":
        return demo_folder()
    if case in ("folders", "masks"):
        return class_folders(folder) if case == "folders" else mask_folders(folder)
    name, source = MADE[case]
    write = format_named(name).write
    assert write is not None
    table = source(folder / "source")
    for target in write(table, folder / "set").images:
        blank(folder / "set" / target)
    return folder / "set"


@pytest.mark.parametrize("case", [*MADE, "folders", "masks", "demo"])
def test_clean_sets(case: str, tmp_path: Path) -> None:
    values = "instance" if case == "masks" else None
    table = read(make(case, tmp_path), mask_values=values)
    if os.environ.get("DETSEG_PRINT_DIGESTS"):
        print(f'\n  "{case}": "{digest(table)}",')
    assert digest(table) == DIGESTS[case]
    assert table.notes.counts == {}


def test_control_the_digest_sees_a_changed_column(tmp_path: Path) -> None:
    table = boxes(tmp_path)
    before = digest(table)
    table.boxes_xywh[0, 0] += 1e-3
    assert digest(table) != before
