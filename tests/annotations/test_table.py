"""Annotation table: records, subsets that share memory, concatenated tables."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.annotations.builder import TableBuilder
from detseg.annotations.concatenate import concatenate
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError

SQUARE = [np.array([[2.0, 1], [6, 1], [6, 5], [2, 5]])]


def table(
    counts: list[int], root: str = "/a", first_id: int = 1, names: tuple[str, ...] = ("x", "y"), source: str = "s"
) -> AnnotationTable:
    """One image for each count, with that many instances; box i of the table is i + 1 pixels wide."""
    builder = TableBuilder(ClassMap(names), root, source=source)
    number = 0
    for i, count in enumerate(counts):
        builder.add_image(f"{i}.png", (100, 200), image_id=first_id + i)
        for _ in range(count):
            number += 1
            builder.add_instance([0, 0, number, 1], 1, segmentation=SQUARE if number % 2 else None)
    return builder.build()


def widths(value: AnnotationTable) -> list[list[float]]:
    return [record.boxes_xywh[:, 2].tolist() for record in value]


@pytest.mark.parametrize("rows", [[], [1], [2, 0], [0, 1, 2, 3], [3, 3]])
def test_subset_shares_instances(rows: list[int]) -> None:
    whole = table([2, 0, 3, 1])
    part = whole.subset(rows)
    assert part.boxes_xywh is whole.boxes_xywh
    assert part.segmentation is whole.segmentation
    assert widths(part) == [widths(whole)[row] for row in rows]
    assert part.record.tolist() == rows
    assert part.instance_rows().tolist() == [
        row for image in rows for row in range(whole.start[image], whole.stop[image])
    ]
    assert part.instances_per_image().tolist() == [[2, 0, 3, 1][row] for row in rows]
    assert part.has_boxes == bool(part.instances_per_image().sum())


def test_subset_of_a_subset_keeps_the_record() -> None:
    part = table([1, 1, 1, 1]).subset([3, 1, 0]).subset([1, 2])
    assert part.record.tolist() == [1, 0]
    assert [record.record for record in part] == [1, 0]
    assert widths(part) == [[2], [1]]


def test_index() -> None:
    value = table([1, 2])
    assert value[-1].boxes_xywh.shape == (2, 4)
    assert value[1].labels.dtype == np.int64
    with pytest.raises(IndexError):
        value[2]


@pytest.mark.parametrize(
    ("crowd", "present", "expected"),
    [([], [], False), ([0], [1], True), ([0], [0], False), ([0, 1], [1, 0], True), ([1], [1], False)],
)
def test_has_masks_considers_training_instances(crowd: list[int], present: list[int], expected: bool) -> None:
    builder = TableBuilder(ClassMap(("x",)), "", source="s")
    builder.add_image("a", (50, 50))
    for iscrowd, has_mask in zip(crowd, present, strict=True):
        builder.add_instance([0, 0, 3, 3], 1, iscrowd=bool(iscrowd), segmentation=SQUARE if has_mask else None)
    value = builder.build()
    assert value.has_masks is expected
    assert value.has_boxes is (0 in crowd)
    assert value.trained_rows().tolist() == [row for row, iscrowd in enumerate(crowd) if not iscrowd]


def test_names_of_records() -> None:
    builder = TableBuilder(ClassMap(("x",)), "/a", source="s")
    builder.add_image("sub/a.png", (5, 5))
    builder.add_image("b.zip", (5, 5), member="in/b.png")
    builder.add_image("c.mp4", (5, 5), frame=7)
    assert [record.name for record in builder.build()] == ["a.png", "b.zip:in/b.png", "c.mp4:frame 7"]


def test_concatenate() -> None:
    joined = concatenate([table([2, 0]), table([], first_id=5), table([1, 3], first_id=10).subset([1])])
    assert widths(joined) == [[1, 2], [], [2, 3, 4]]
    assert joined.image_id.tolist() == [1, 2, 11]
    assert joined.record.tolist() == [0, 1, 2]
    assert joined[2].segmentations[0] is None
    assert joined[2].segmentations[1] is not None
    assert joined.root == Path("/a")
    assert not joined.notes


def test_concatenate_renumbers_shared_ids_and_keeps_paths() -> None:
    joined = concatenate([table([1], "/a/train"), table([1], "/a/val", source="t")])
    assert joined.image_id.tolist() == [1, 2]
    assert list(joined.notes.counts) == ["image ids renumbered 1..n because files share ids"]
    assert [record.path for record in joined] == [Path("/a/train/0.png"), Path("/a/val/0.png")]


@pytest.mark.parametrize("tables", [[], [table([1]), table([1], names=("y", "x"))]])
def test_concatenate_rejects(tables: list[Any]) -> None:
    with pytest.raises(DataError):
        concatenate(tables)


def categories(*pairs: tuple[int, str], source: str = "s") -> AnnotationTable:
    """One image with one instance of every class."""
    class_map = ClassMap(tuple(name for _, name in pairs), tuple(number for number, _ in pairs))
    builder = TableBuilder(class_map, "/a", source=source)
    builder.add_image(f"{source}.png", (100, 200))
    for label in range(1, len(pairs) + 1):
        builder.add_instance([0, 0, 9, 9], label)
    return builder.build()


@pytest.mark.parametrize(
    ("first", "second", "names", "labels"),
    [
        ([], [(1, "cat")], ("cat",), [[], [1]]),
        ([(1, "cat")], [(1, "cat")], ("cat",), [[1], [1]]),
        ([(1, "cat"), (7, "dog")], [(7, "dog")], ("cat", "dog"), [[1, 2], [2]]),
        ([(7, "dog")], [(0, "cow"), (1, "cat")], ("cow", "cat", "dog"), [[3], [1, 2]]),
        ([(7, "dog"), (1, "cat")], [(7, "dog"), (1, "cat")], ("dog", "cat"), [[1, 2], [1, 2]]),
    ],
)
def test_concatenate_completes_the_class_list(first: Any, second: Any, names: Any, labels: Any) -> None:
    tables = [categories(*first, source="train"), categories(*second, source="val")]
    joined = concatenate(tables)
    assert joined.class_map.names == names
    assert [record.labels.tolist() for record in joined] == labels
    for record, original in zip(joined, [record for source in tables for record in source], strict=True):
        table_of = tables[joined.media.tolist().index(record.path.name)]
        assert [joined.class_map.name_of(x) for x in record.labels] == [
            table_of.class_map.name_of(x) for x in original.labels
        ]
    assert any("class list completed" in line for line in joined.notes.lines()) == (first != second)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([(1, "cat")], [(1, "dog")], "val has the class 'dog' as category 1, .* has 'cat' as category 1; give every"),
        ([(1, "cat")], [(2, "cat")], "val has the class 'cat' as category 2, .* 'cat' as category 1; give every"),
        ([(1, "a"), (2, "b")], [(1, "b"), (2, "a")], "val has the class 'b' as category 1, .* 'b' as category 2; give"),
    ],
)
def test_concatenate_rejects_contradictory_classes(first: Any, second: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        concatenate([categories(*first, source="train"), categories(*second, source="val")])


def test_a_table_can_be_pickled_for_a_worker() -> None:
    value = table([2, 0, 1])
    copy = pickle.loads(pickle.dumps(value))
    assert widths(copy) == widths(value)
    assert copy.media.tolist() == value.media.tolist()
