"""The fingerprint of a data set changes with everything that is learned from, and names the images that changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from detseg.annotations import AnnotationTable
from detseg.annotations.builder import TableBuilder
from detseg.annotations.fingerprint import VERSION, Fingerprint, differences, fingerprint
from detseg.classes import ClassMap
from detseg.keypoints import keypoint_schema


@pytest.fixture
def table(tmp_path: Path) -> AnnotationTable:
    """Four images of one object with an outline, or a mask in the last, and three keypoints."""
    schema = keypoint_schema(["left_eye", "right_eye", "nose"])
    builder = TableBuilder(ClassMap(("a", "b")), str(tmp_path), source="set", keypoint_schema=schema)
    rng = np.random.default_rng(0)
    for image in range(4):
        PIL.Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / f"{image}.png")
        builder.add_image(f"{image}.png", (40, 50), image_id=image + 1)
        ring = np.array([[5, 5], [30, 5], [30, 25], [5, 25.0]])
        builder.add_instance(
            [5, 5, 25, 20],
            1 + image % 2,
            segmentation=[ring],
            keypoints=np.array([[6, 6, 2], [9, 9, 2], [12, 9, 1.0]]),
            where=f"image {image}",
        )
    return builder.build()


def after(table: AnnotationTable, change: Callable[[AnnotationTable], AnnotationTable]) -> tuple[list[str], bool]:
    """The differences after a change, and whether the rule of before would have seen it."""
    before = fingerprint({"train": table})
    changed = change(table)
    now = fingerprint({"train": changed})
    return differences(before, now, {"train": changed}), seen_before(before, now)


def seen_before(before: Fingerprint, now: Fingerprint) -> bool:
    """The first rule: classes, counts and one checksum of a split."""
    return (before["classes"], before["parts"]["train"]["sha256"]) != (now["classes"], now["parts"]["train"]["sha256"])


def with_other_outline(table: AnnotationTable) -> AnnotationTable:
    points = table.segmentation.points.copy()
    points[5, 1] += 100 if points.dtype == np.int32 else 1
    return replace(table, segmentation=replace(table.segmentation, points=points))


def with_difficult(table: AnnotationTable) -> AnnotationTable:
    difficult = table.difficult.copy()
    difficult[2] = True
    return replace(table, difficult=difficult)


def with_other_keypoint(table: AnnotationTable) -> AnnotationTable:
    assert table.keypoints is not None
    keypoints = table.keypoints.copy()
    keypoints[3, 0, 0] += 1
    return replace(table, keypoints=keypoints)


def with_other_pairs(table: AnnotationTable) -> AnnotationTable:
    assert table.keypoint_schema is not None
    return replace(table, keypoint_schema=replace(table.keypoint_schema, swaps=()))


def with_other_pixels(table: AnnotationTable) -> AnnotationTable:
    for name in ("1.png", "3.png"):
        path, stat = table.root / name, (table.root / name).stat()
        content = bytearray(path.read_bytes())
        content[-20] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return table


def with_other_times(table: AnnotationTable) -> AnnotationTable:
    for path in table.root.iterdir():
        os.utime(path, (1, 1))
    return table


ANNOTATIONS = "train: the name or the annotations of 1 image: "
CHANGES = [
    (with_other_outline, [f"{ANNOTATIONS}1.png"], False),
    (with_difficult, [f"{ANNOTATIONS}2.png"], False),
    (with_other_pixels, ["train: the file of 2 images: 1.png, 3.png"], False),
    (with_other_pairs, ["the keypoints, their order or their pairs are different"], False),
    (with_other_keypoint, [f"{ANNOTATIONS}3.png"], True),
    (lambda table: table.subset([1, 0, 2, 3]), ["train: the order of the images"], True),
    (lambda table: table.subset([0, 1]), ["train: 4 images, 4 objects, now 2 images, 2 objects"], True),
    (with_other_times, [], False),
    (lambda table: table, [], False),
]


@pytest.mark.parametrize(("change", "expected", "was_seen"), CHANGES)
def test_changes(
    change: Callable[[AnnotationTable], AnnotationTable],
    expected: list[str],
    was_seen: bool,
    table: AnnotationTable,
) -> None:
    found, seen = after(table, change)
    assert found == [text.replace("objects", "instances") for text in expected]
    assert seen == was_seen, "control: the first rule"


def test_an_old_run_keeps_its_rule(table: AnnotationTable) -> None:
    now = fingerprint({"train": table})
    assert now["version"] == VERSION
    part = {name: now["parts"]["train"][name] for name in ("images", "objects", "sha256")}
    old = {"classes": now["classes"], "parts": {"train": part}}
    with_other_pixels(table)
    assert differences(old, fingerprint({"train": table}), {"train": table}) == []
    moved = with_other_keypoint(table)
    same = ["train: the same counts, but different names, sizes or annotations"]
    assert differences(old, fingerprint({"train": moved}), {"train": moved}) == same
    newer = {**now, "version": VERSION + 1, "parts": {"train": part}}
    assert differences(newer, fingerprint({"train": table}), {"train": table}) == [], "a later version keeps it"


def test_what_has_no_file_is_not_read(table: AnnotationTable) -> None:
    without = replace(table, media=np.full(len(table), ""))
    assert set(fingerprint({"train": without})["parts"]["train"]["files"]) <= {"A", "="}
    (table.root / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"2\.png"):
        fingerprint({"train": table})
