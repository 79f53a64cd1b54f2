"""The old rules for names: every comma separates, and unselected objects decide nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.annotations import read
from detseg.class_names import UnknownClassError, class_names
from tests.real_exports import cases_commas


def old_rule(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


@pytest.mark.parametrize("text", ["bolt, M6", '"bolt, M6"', "nut,bolt, M6"])
def test_every_comma_separates(text: str, tmp_path: Path) -> None:
    cases_commas.WRITERS["coco"](tmp_path)
    with pytest.raises(UnknownClassError, match="no class '"):
        read(tmp_path, classes=old_rule(text))
    assert "bolt, M6" in read(tmp_path, classes=text).class_map.names


def test_a_list_is_not_divided_or_joined(tmp_path: Path) -> None:
    cases_commas.WRITERS["coco"](tmp_path)
    assert class_names(["bolt, M6"]) == ["bolt, M6"]
    with pytest.raises(UnknownClassError) as refused:
        read(tmp_path, classes=["bolt", "M6"])
    assert "bolt, M6" in refused.value.available
