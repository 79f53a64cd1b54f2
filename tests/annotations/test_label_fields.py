"""Tables with several label fields: joined by name, matched to other fields, divided."""

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


def table(own: tuple[LabelField, ...], rows: list[tuple[int, ...]], source: str = "s") -> AnnotationTable:
    builder = TableBuilder(joined(own), "", source=source, label_fields=own)
    for row, index in enumerate(rows):
        builder.add_image(f"{source}-{row}.png", (5, 5), class_index=index)
    return builder.build()


def names(one: AnnotationTable) -> list[list[str]]:
    return [record.class_names(one.class_map) for record in one]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (set(), []),
        ({"b"}, ["b"]),
        ({"10", "9", "-1"}, ["-1", "9", "10"]),
        ({"10", "9", "x"}, ["10", "9", "x"]),
        ({"ß", "z", "Z"}, ["Z", "z", "ß"]),
    ],
)
def test_order_of_classes(given: set[str], expected: list[str]) -> None:
    assert in_order(given) == expected


@pytest.mark.parametrize("rows", [[], [(0, 1)], [(0, 1), (-1, 2), (1, -1)]])
def test_equal_fields_stay_as_they_are(rows: list[tuple[int, ...]]) -> None:
    own = fields(colour="red blue", shape="x z y")
    both = concatenate([table(own, rows, "a"), table(own, rows, "b")])
    assert both.label_fields == own
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


def test_one_label_and_several_do_not_mix() -> None:
    builder = TableBuilder(ClassMap(("red", "blue")), "", source="one.csv")
    builder.add_image("1.png", (5, 5), class_index=0)
    several = table(fields(colour="red blue", shape="x y"), [(0, 0)], "two.csv")
    with pytest.raises(DataError, match=r"two\.csv has the label columns colour, shape, one\.csv has none of them"):
        concatenate([several, builder.build()])


def test_with_other_fields() -> None:
    one = table(fields(shape="x y", colour="red blue"), [(0, 1), (1, -1)])
    known = fields(colour="blue grey red", size="s m", shape="y x")
    assert names(with_fields(one, known)) == [["colour=blue", "shape=x"], ["shape=y"]]
    assert with_fields(one, known).class_index.tolist() == [[0, -1, 1], [-1, -1, 0]]
    with pytest.raises(DataError, match=r"s: shape, colour=red is not known; known are colour \(blue\), size \(s\)"):
        with_fields(one, fields(colour="blue", size="s"))


def test_parts_have_the_same_share_of_every_class() -> None:
    rows = [(i % 2, (i // 2) % 3) for i in range(60)]
    own = fields(colour="red blue", shape="x y z")
    parts = split(table(own, rows), by="stratified", val=0.2)
    for part, size in (("train", 48), ("val", 12)):
        assert np.bincount(parts[part].class_index[:, 0]).tolist() == [size // 2] * 2
        assert np.bincount(parts[part].class_index[:, 1]).tolist() == [size // 3] * 3
        assert parts[part].label_fields == own
    few = subset(parts["train"], 12)
    assert np.bincount(few.class_index[:, 1], minlength=3).min() >= 2
