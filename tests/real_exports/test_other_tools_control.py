"""Controls of the cases about JSON of other tools."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from detseg.annotations import read
from detseg.errors import DataError
from tests.real_exports import cases_missing_images, sets

DEEP = "[" * 1000 + "]" * 1000


@pytest.mark.parametrize(
    "text", [DEEP, '{"a":' * 5000 + "1" + "}" * 5000, "[" * 200_000, "", "{", "nul", "[1, 2]", "\xff"]
)
def test_stray_json_beside_a_data_set(text: str, tmp_path: Path) -> None:
    cases_missing_images.csv(tmp_path)
    sets.put(tmp_path / "stray.json", text)
    assert len(read(tmp_path)) == 3
    with pytest.raises(DataError):
        read(tmp_path / "stray.json", format="coco")
    (tmp_path / "boxes.csv").unlink()
    with pytest.raises(DataError, match="no known data set"):
        read(tmp_path)


@pytest.mark.parametrize("format", [None, "coco", "labelme", "via"])
def test_a_file_of_another_tool_passed_directly(format: str | None, tmp_path: Path) -> None:
    path = sets.put(tmp_path / "default.json", '{"info": {}, "categories": {"label": {}}, "items": []}')
    with pytest.raises(DataError, match=r"default.json: Datumaro JSON, which is not read; .*COCO 1.0"):
        read(path, format=format)
    with pytest.raises(DataError, match=r"default.json is Datumaro JSON"):
        read(tmp_path, format=format)


def test_control_a_large_file_is_not_parsed(tmp_path: Path) -> None:
    content = [{"externalId": "1", "labels": [{"jsonResponse": {}}], "content": "x" * 30_000_000}]
    path = sets.put(tmp_path / "project.json", json.dumps(content))
    start = time.perf_counter()
    with pytest.raises(DataError, match="Kili"):
        read(path)
    assert time.perf_counter() - start < 0.5


def test_class_folders_with_annotations_of_another_tool(tmp_path: Path) -> None:
    for name in ("images/bolt/a.jpg", "images/nut/b.jpg"):
        sets.image(tmp_path / name)
    assert len(read(tmp_path / "images", format="folders")) == 2, "control: two folders are two classes"
    sets.put(tmp_path / "images/project.json", json.dumps([{"externalId": "1", "labels": [{"jsonResponse": {}}]}]))
    with pytest.raises(DataError, match=r"Kili JSON.*pass --format folders"):
        read(tmp_path / "images")
    assert len(read(tmp_path / "images", format="folders")) == 2
