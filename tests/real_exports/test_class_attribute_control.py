"""The old rule for the class of VIA's regions takes an attribute that nobody filled, or one of two at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from detseg.annotations import read
from detseg.annotations.formats.via.class_attribute import CLASS_ATTRIBUTES, choose_attribute, class_of
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError

UNFILLED = [{"name": "not_defined", "type": "human"}, {"name": "not_defined", "type": "bird"}]
FEW_FILLED = [{"label": "", "type": "a"}, {"label": "x", "type": "b"}, {"label": "", "type": "c"}]


def old_rule(regions: Sequence[dict[str, Any]]) -> str:
    """A usual name in any region, filled or not; else the attribute that most regions have, the first of equals."""
    counts = Counter(name for region in regions for name in region)
    named = next((name for name in CLASS_ATTRIBUTES if name in counts), None)
    return named or max(counts, key=lambda name: counts[name])


def classes(regions: Sequence[dict[str, Any]], attribute: str) -> list[str]:
    return [class_of(region, attribute, "", RepairLog()) for region in regions]


@pytest.mark.parametrize(
    ("regions", "right"), [(UNFILLED, ["human", "bird"]), (FEW_FILLED, ["a", "b", "c"])], ids=["default", "few"]
)
def test_an_attribute_that_is_not_filled(regions: list[dict[str, Any]], right: list[str]) -> None:
    chosen = choose_attribute(regions, {}, None, "via.json", RepairLog())
    assert chosen is not None
    assert classes(regions, chosen) == right
    assert "" in classes(regions, old_rule(regions)), "control: objects without a class, which are dropped"


def test_two_attributes_that_may_be_the_class() -> None:
    regions = [{"colour": "red", "species": "cat"}, {"colour": "blue", "species": "dog"}]
    assert old_rule(regions) == "colour", "control: the first, without a word"
    with pytest.raises(DataError, match="--class-attribute colour, or the name of another one"):
        choose_attribute(regions, {}, None, "via.json", RepairLog())


def test_awkward_definitions_are_no_error() -> None:
    for definition in (None, 3, [], {"options": 3, "default_options": [1]}, {"default_options": {"x": [1]}}):
        assert choose_attribute([{"kind": "a"}], {"kind": definition}, None, "via.json", RepairLog()) == "kind"
    assert choose_attribute([{}, {"x": None}], {}, None, "via.json", RepairLog()) is None
    assert choose_attribute([{"kind": [1, 2]}], {}, None, "via.json", RepairLog()) == "kind"


def test_exports_of_the_field(shared_data: Path) -> None:
    folder = shared_data / "field_cases"
    if not (folder / "I01_mixed").is_dir():
        pytest.skip(f"no field cases in {shared_data}")
    mixed = read(folder / "I01_mixed")
    assert mixed.class_map.names == ("bolt",)
    assert len(mixed.label) == 2
    defaults = read(folder / "I08_via_default_attributes")
    assert defaults.class_map.names == ("bird", "human")
    assert [defaults.class_map.name_of(int(label)) for label in defaults.label] == ["human", "bird"] * 2
    for text in ("bolt, M6", '"bolt, M6"', '["bolt, M6"]', ["bolt, M6"]):
        assert read(folder / "N02_comma", classes=text).class_map.names == ("bolt, M6",)
    assert "bolt" in read(folder / "N02_comma", rename="bolt, M6=bolt").class_map.names
