"""Tables with several label fields: concatenated by name, converted to other fields, split."""

from __future__ import annotations

import numpy as np
import pytest

from detseg.annotations.builder import TableBuilder
from detseg.annotations.concatenate import concatenate
from detseg.annotations.label_fields import in_order, with_fields
from detseg.annotations.split import split, subset
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError


def fields(**classes: str) -> tuple[LabelField, ...]:
    """``fields(colour="red blue")``: fields and their classes."""
    return tuple(LabelField(name, ClassMap(tuple(names.split()))) for name, names in classes.items())


def table(label_fields: tuple[LabelField, ...], rows: list[tuple[int, ...]], source: str = "s") -> AnnotationTable:
    builder = TableBuilder(joined(label_fields), "", source=source, label_fields=label_fields)
    for row, index in enumerate(rows):
        builder.add_image(f"{source}-{row}.png", (5, 5), class_index=index)
    return builder.build()


def names(value: AnnotationTable) -> list[list[str]]:
    return [record.class_names(value.class_map) for record in value]


@pytest.mark.parametrize(
    ("class_names", "expected"),
    [
        (set(), []),
        ({"b"}, ["b"]),
        ({"10", "9", "-1"}, ["-1", "9", "10"]),
        ({"10", "9", "x"}, ["10", "9", "x"]),
        ({"ß", "z", "Z"}, ["Z", "z", "ß"]),
    ],
)
def test_order_of_classes(class_names: set[str], expected: list[str]) -> None:
    assert in_order(class_names) == expected


@pytest.mark.parametrize("rows", [[], [(0, 1)], [(0, 1), (-1, 2), (1, -1)]])
def test_equal_fields_are_unchanged(rows: list[tuple[int, ...]]) -> None:
    label_fields = fields(colour="red blue", shape="x z y")
    both = concatenate([table(label_fields, rows, "a"), table(label_fields, rows, "b")])
    assert both.label_fields == label_fields
    assert both.class_index.tolist() == [list(row) for row in rows * 2]
    assert list(both.notes.counts) == (["image ids renumbered 1..n because files share ids"] if rows else [])


def test_fields_and_classes_are_joined_by_name() -> None:
    first = table(fields(colour="red blue", shape="x y"), [(0, 1), (1, -1)], "a")
    second = table(fields(shape="z x", colour="blue red", size="2 10"), [(0, 0, 1), (1, 1, -1)], "b")
    both = concatenate([first, second], by_name=True)
    assert both.label_fields == fields(colour="red blue", shape="x y z", size="2 10")
    assert both.class_map == joined(both.label_fields)
    assert names(both) == [
        ["colour=red", "shape=y"],
        ["colour=blue"],
        ["colour=blue", "shape=z", "size=10"],
        ["colour=red", "shape=x"],
    ]
    assert both.notes.lines()[0] == (
        "2 x class list completed from the other files: a lacks shape=z, size=2, size=10; b lacks shape=y"
    )


def test_one_label_and_several_cannot_be_concatenated() -> None:
    builder = TableBuilder(ClassMap(("red", "blue")), "", source="one.csv")
    builder.add_image("1.png", (5, 5), class_index=0)
    several = table(fields(colour="red blue", shape="x y"), [(0, 0)], "two.csv")
    with pytest.raises(DataError, match=r"two\.csv has the label columns colour, shape, one\.csv has none of them"):
        concatenate([several, builder.build()])


def test_with_other_fields() -> None:
    original = table(fields(shape="x y", colour="red blue"), [(0, 1), (1, -1)])
    other_fields = fields(colour="blue grey red", size="s m", shape="y x")
    assert names(with_fields(original, other_fields)) == [["colour=blue", "shape=x"], ["shape=y"]]
    assert with_fields(original, other_fields).class_index.tolist() == [[0, -1, 1], [-1, -1, 0]]
    with pytest.raises(DataError, match=r"s: shape, colour=red is not known; known are colour \(blue\), size \(s\)"):
        with_fields(original, fields(colour="blue", size="s"))


def test_splits_have_the_same_share_of_every_class() -> None:
    rows = [(i % 2, (i // 2) % 3) for i in range(60)]
    label_fields = fields(colour="red blue", shape="x y z")
    splits = split(table(label_fields, rows), by="stratified", val=0.2)
    for name, size in (("train", 48), ("val", 12)):
        assert np.bincount(splits[name].class_index[:, 0]).tolist() == [size // 2] * 2
        assert np.bincount(splits[name].class_index[:, 1]).tolist() == [size // 3] * 3
        assert splits[name].label_fields == label_fields
    few = subset(splits["train"], 12)
    assert np.bincount(few.class_index[:, 1], minlength=3).min() >= 2
