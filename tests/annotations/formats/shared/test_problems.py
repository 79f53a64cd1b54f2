"""All problems of a data set in one message, in every format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from detseg.annotations import read
from detseg.annotations.formats.shared.problems import Problems
from detseg.errors import DataError
from tests.real_exports import sets

GOOD, NAMES = (20, 20, 50, 50), ("1.jpg", "2.jpg", "3.jpg")


def voc(root: Path, bad: str) -> None:
    sets.voc(root, {name: [("bolt", (20, 20, 50, value))] for name, value in zip(NAMES, (bad, 50, bad), strict=True)})


def cvat(root: Path, bad: str) -> None:
    box = '<box label="bolt" xtl="20" ytl="20" xbr="50" ybr="{}"/>'
    sets.cvat(root, {"1.jpg": [box.format(bad), box.format(50)], "2.jpg": [box.format(bad)]})


def csv(root: Path, bad: str) -> None:
    rows = [f"{name},20,20,50,{value},bolt" for name, value in zip(NAMES, (bad, 50, bad), strict=True)]
    sets.csv(root, "filename,xmin,ymin,xmax,ymax,class", rows)


def yolo(root: Path, bad: str) -> None:
    sets.yolo(root, {"1.jpg": [f"0 0.5 0.5 0.2 {bad}", "0 0.5 0.5 0.2 0.2"], "2.jpg": [f"0 0.5 0.5 0.2 {bad}"]})


def labelme(root: Path, bad: str) -> None:
    shape = {"label": "bolt", "shape_type": "rectangle"}
    points = ([[20, 20], [50, bad]], [[20, 20], [50, 50]], [[20, 20], [50, bad]])
    sets.labelme(root, {name: [{**shape, "points": value}] for name, value in zip(NAMES, points, strict=True)})


def via(root: Path, bad: str) -> None:
    rect = {"name": "rect", "x": 20, "y": 20, "width": 30}
    region = {"shape_attributes": rect, "region_attributes": {"name": "bolt"}}
    good = {**region, "shape_attributes": {**rect, "height": 30}}
    sets.via(root, {"1.jpg": [region, good], "2.jpg": [region]})


@pytest.mark.parametrize(
    ("write", "places"),
    [
        (voc, r"2 problems: Annotations/1.xml, object 1 .*'x'.*; Annotations/3.xml, object 1 .*'x'"),
        (cvat, r"2 problems: .*image 0 \(1.jpg\), shape 1.*'x'.*image 1 \(2.jpg\), shape 1.*'x'"),
        (csv, r"2 problems: boxes.csv, line 2: ymax 'x'.*; boxes.csv, line 4: ymax 'x'"),
        (yolo, r"2 lines cannot be read: 2 x text or a number that is not finite, such as labels/1.txt, line 1"),
        (labelme, r"2 problems: 1.json: 1 x shapes.points.*; 3.json: 1 x shapes.points"),
        (via, r"2 problems: via.json, 1.jpg, region 0 \(rect\): no height.*; via.json, 2.jpg, region 0"),
    ],
    ids=["voc", "cvat", "csv", "yolo", "labelme", "via"],
)
def test_all_problems_are_listed(write: Callable[[Path, str], None], places: str, tmp_path: Path) -> None:
    write(tmp_path, "x")
    with pytest.raises(DataError, match=places):
        read(tmp_path)


def test_one_problem_is_raised_as_it_is_and_many_are_counted() -> None:
    problems = Problems()
    problems.raise_all("set")
    first = DataError("line 0: wrong")
    with problems.collect():
        raise first
    with pytest.raises(DataError) as caught:
        problems.raise_all("set")
    assert caught.value is first
    for line in range(1, 8):
        with problems.collect():
            raise DataError(f"line {line}: wrong")
    with pytest.raises(DataError, match=r"^set: 8 problems: line 0: wrong; .*; line 4: wrong; and 3 more$"):
        problems.raise_all("set")
    with pytest.raises(ValueError, match="other"), problems.collect():
        raise ValueError("other")
