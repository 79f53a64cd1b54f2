"""The list of formats: each is one ``FORMAT``, and adding one is one line."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest

from detseg import options
from detseg.annotations import find_format, read
from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats import all_formats
from detseg.annotations.formats.createml.read import read_createml
from detseg.annotations.formats.csv.boxes import read_csv_boxes
from detseg.annotations.formats.csv.labels import read_csv_labels
from detseg.annotations.formats.csv.landmarks import read_csv_landmarks
from detseg.annotations.formats.cvat.read import read_cvat
from detseg.annotations.formats.format import Detected, Format, Layout, Reader, ReadOptions
from detseg.annotations.formats.labelme.read import read_labelme
from detseg.annotations.formats.labelstudio.read import read_labelstudio
from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.formats.supervisely.read import read_supervisely
from detseg.annotations.formats.via.read import read_via
from detseg.annotations.formats.voc.read import read_voc
from detseg.annotations.formats.yolo.read import read_yolo
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.recipes.convert import convert

READERS = (
    read_csv_boxes,
    read_csv_labels,
    read_csv_landmarks,
    read_createml,
    read_cvat,
    read_labelme,
    read_labelstudio,
    read_supervisely,
    read_via,
    read_voc,
    read_yolo,
)


def find_toy(root: Path, files: list[str]) -> Detected | None:
    return Detected("Toy: boxes.toy") if "boxes.toy" in files else None


def read_toy(layout: Layout, options: ReadOptions) -> AnnotationTable:
    path = layout.path if layout.file else layout.path / "boxes.toy"
    builder = TableBuilder(ClassMap.from_names(["thing"]), path.parent, source="toy")
    for name, box in json.loads(path.read_text(encoding="utf-8")).items():
        builder.add_image(name, (20, 30))
        builder.add_instance(box, 1)
    return builder.build()


def write_toy(table: AnnotationTable, folder: Path) -> WriteResult:
    folder.mkdir()
    boxes = {record.path.name: record.boxes_xywh[0].tolist() for record in table}
    (folder / "boxes.toy").write_text(json.dumps(boxes), encoding="utf-8")
    return WriteResult(list(boxes), RepairLog())


TOY = Format("toy", find_toy, read_toy, write_toy, (".toy",), "a file boxes.toy")


@pytest.fixture
def toy_set(tmp_path: Path) -> Path:
    folder = tmp_path / "toy set"
    folder.mkdir()
    (folder / "a.png").write_bytes(cv2.imencode(".png", np.zeros((20, 30), np.uint8))[1].tobytes())
    (folder / "boxes.toy").write_text('{"a.png": [1, 2, 3, 4]}', encoding="utf-8")
    return folder


def test_a_format_is_added_by_one_line(toy_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no known data set"):  # control: without the line it is unknown
        read(toy_set)
    monkeypatch.setattr(all_formats, "FORMATS", (*all_formats.FORMATS, TOY))
    assert find_format(toy_set).format == "toy"
    for data in (toy_set, toy_set / "boxes.toy"):
        assert read(data).boxes_xywh.tolist() == [[1, 2, 3, 4]]
    convert(options.ConvertConfig(data=str(toy_set), output=str(tmp_path / "as coco"), to="coco"))
    to: Any = "toy"
    convert(options.ConvertConfig(data=str(tmp_path / "as coco"), output=str(tmp_path / "back"), to=to))
    assert read(tmp_path / "back", format="toy").boxes_xywh.tolist() == [[1, 2, 3, 4]]
    with pytest.raises(DataError, match=r"  toy:         a file boxes\.toy"):
        read(tmp_path / "back", format="voc")


def test_options_name_all_formats() -> None:
    to = inspect.get_annotations(options.ConvertConfig, eval_str=True)["to"]
    assert get_args(options.Format) == tuple(format.name for format in all_formats.FORMATS)
    assert set(get_args(to)) == {format.name for format in all_formats.FORMATS if format.write}


@pytest.mark.parametrize("reader", READERS)
def test_readers_keep_the_contract(reader: Any) -> None:
    contract = list(inspect.signature(Reader.__call__).parameters.values())[1:]
    own = inspect.signature(reader).parameters
    for parameter in contract:
        assert own[parameter.name] == parameter, parameter.name
    assert "format.Reader" in reader.__doc__


def test_a_format_that_cannot_be_written(tmp_path: Path) -> None:
    to: Any = "masks"
    with pytest.raises(DataError, match="can be read, but not written"):
        convert(options.ConvertConfig(output=str(tmp_path / "out"), to=to))


def test_unknown_format() -> None:
    with pytest.raises(DataError, match="choose coco, voc, arrays, yolo"):
        all_formats.format_named("word")
