"""Create ML: class labels of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detseg.annotations import read
from tests.real_exports import sets


@pytest.mark.parametrize(
    "items",
    [("ant", "bee"), ([{"label": "ant"}], [{"label": "bee"}]), (["ant"], ["bee"])],
    ids=["text", "dict", "list"],
)
def test_labels_of_images(items: Any, tmp_path: Path) -> None:
    first, second = ([item] if isinstance(item, str) else item for item in items)
    sets.createml(tmp_path, {"a.jpg": first, "b.jpg": second})
    table = read(tmp_path)
    assert [record.class_names(table.class_map) for record in table] == [["ant"], ["bee"]]


def test_several_labels_of_an_image(tmp_path: Path) -> None:
    sets.createml(tmp_path, {"a.jpg": ["ant", "bee"], "b.jpg": ["bee"]})
    table = read(tmp_path)
    assert [record.class_names(table.class_map) for record in table] == [["ant=1", "bee=1"], ["ant=0", "bee=1"]]
