"""Objects that cannot be used, and the images that lost all of theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detseg.annotations.builder import TableBuilder
from detseg.annotations.concatenate import concatenate
from detseg.annotations.lost_objects import LostObjects
from detseg.annotations.missing_masks import with_complete_masks
from detseg.annotations.split_file import read_split, write_split
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError

SQUARE = [np.array([[2.0, 2], [12, 2], [12, 12], [2, 12]])]
NO_WIDTH = [5, 5, 0, 4]


def table(images: dict[str, str], root: str = "/data") -> AnnotationTable:
    """A table of images: for each instance b (a box), m (a mask), c (a crowd without a mask) or x (lost)."""
    builder = TableBuilder(ClassMap.from_names(["bolt"]), Path(root), source="set")
    for name, instances in images.items():
        builder.add_image(name, (40, 60))
        for number, kind in enumerate(instances):
            box = NO_WIDTH if kind == "x" else [2, 2, 10, 10]
            segmentation = SQUARE if kind == "m" else None
            builder.add_instance(box, 1, segmentation=segmentation, iscrowd=kind == "c", annotation_id=number)
    return builder.build()


@pytest.mark.parametrize(
    ("images", "kept", "lost"),
    [
        ({}, [], LostObjects()),
        ({"a": ""}, ["a"], LostObjects()),
        ({"a": "b"}, ["a"], LostObjects()),
        ({"a": "bx"}, ["a"], LostObjects(1, 2, 1)),
        ({"a": "xx", "b": "b", "c": ""}, ["b", "c"], LostObjects(2, 3, 1, ("a",))),
        ({"a": "x", "b": ""}, ["b"], LostObjects(1, 1, 1, ("a",))),
        ({"a": "xc", "b": "x", "c": "bb"}, ["a", "c"], LostObjects(2, 5, 2, ("b",))),
    ],
)
def test_which_images_are_left_out(images: dict[str, str], kept: list[str], lost: LostObjects) -> None:
    found = table(images)
    assert found.media.tolist() == kept
    assert found.lost == lost
    assert found.record.tolist() == list(range(len(kept)))
    assert found.instances_per_image().tolist() == [len(images[name].replace("x", "")) for name in kept]
    assert bool(found.lost.line()) is (lost.objects > 0)


def test_lines() -> None:
    assert LostObjects().line() == ""
    assert LostObjects(1, 2, 1).line() == "lost: 1 of 2 objects in 1 image"
    many = LostObjects(7, 70, 7, tuple("abcdefg")).line()
    assert (
        many
        == "lost: 7 of 70 objects in 7 images; 7 images lost all their objects and are left out: a, b, c, d, e, ..."
    )


def test_no_image_is_left() -> None:
    with pytest.raises(
        DataError, match=r"set: no image has an object that can be used; lost: 2 of 2 objects in 2 images"
    ):
        table({"a": "x", "b": "x"})


def test_tables_are_added_up() -> None:
    first, second = table({"a": "x", "b": "b"}, "/data/one"), table({"a": "x", "c": "bx"}, "/data/two")
    whole = concatenate([first, second])
    assert whole.lost == LostObjects(3, 5, 3, ("one/a", "two/a"))
    assert whole.subset([0]).lost == whole.lost


def test_a_split_file_that_lists_an_image_left_out(tmp_path: Path) -> None:
    before = table({"a": "b", "b": "b", "c": "b"})
    write_split({"train": before.subset([0, 1]), "val": before.subset([2])}, tmp_path / "split.json")
    splits = read_split(table({"a": "x", "b": "b", "c": "b"}), tmp_path / "split.json")
    assert {name: split.media.tolist() for name, split in splits.items()} == {"train": ["b"], "val": ["c"]}
    with pytest.raises(DataError, match="1 of its images are not in"):
        read_split(table({"b": "b", "c": "b"}), tmp_path / "split.json")  # control: an image that is missing


@pytest.mark.parametrize(
    ("images", "choice", "masks", "kept"),
    [
        ({"a": ""}, "drop", "", ["a"]),
        ({"a": "b"}, "box", "0", ["a"]),  # without any mask, boxes are intended
        ({"a": "bb"}, "drop", "00", ["a"]),
        ({"a": "mm"}, "drop", "11", ["a"]),
        ({"a": "mc"}, None, "10", ["a"]),  # a crowd needs no mask
        ({"a": "mb"}, None, "11", ["a"]),
        ({"a": "mbb"}, None, "100", ["a"]),
        ({"a": "mbb"}, "box", "111", ["a"]),
        ({"a": "mb", "b": "b", "c": "", "d": "bmc"}, "drop", "110", ["a", "c", "d"]),
        ({"a": "mb", "b": "b"}, "keep", "100", ["a", "b"]),
    ],
)
def test_missing_masks(images: dict[str, str], choice: str | None, masks: str, kept: list[str]) -> None:
    found = with_complete_masks(table(images), choice)
    assert "".join(str(int(value)) for value in found.segmentation.present()[found.instance_rows()]) == masks
    assert found.media.tolist() == kept
    assert [record.boxes_xywh.tolist() for record in found] == [[[2, 2, 10, 10]] * len(record) for record in found]


def test_the_mask_of_a_box_is_the_box() -> None:
    found = with_complete_masks(table({"x": "x", "a": "mb", "b": "bmm"}), None)
    for record in found:
        for segmentation in record.segmentations:
            assert isinstance(segmentation, list)
            np.testing.assert_array_equal(segmentation[0], SQUARE[0])
    kinds = [kind for kind in found.notes.counts if kind.startswith("box used as the mask")]
    assert found.notes.counts[kinds[0]] == 2
    assert found.notes.examples[kinds[0]] == ["a, annotation 1", "b, annotation 0"]


def test_dropped_instances_are_lost() -> None:
    found = with_complete_masks(table({"x": "x", "a": "mmb", "b": "b"}), "drop")
    assert found.lost == LostObjects(3, 5, 3, ("x", "b"))
