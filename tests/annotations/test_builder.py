"""Table builder: which instances are added, repaired, dropped or rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.annotations.builder import TableBuilder
from detseg.annotations.instance_box import SORTED
from detseg.annotations.split import class_presence
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError
from detseg.keypoints import keypoint_schema
from detseg.masks import mask_to_rle

CLASSES = ClassMap(("cell", "crystal"), (7, 3))
SQUARE = [np.array([[2.0, 1], [6, 1], [6, 5], [2, 5]])]


def builder(**options: Any) -> TableBuilder:
    table_builder = TableBuilder(CLASSES, "/images", source="a.json", **options)
    table_builder.add_image("one.png", (20, 30))
    return table_builder


def one_instance(box: Any, label: int = 1, **options: Any) -> AnnotationTable:
    table_builder = builder()
    table_builder.add_instance(box, label, **options)
    return table_builder.build(keep_all_images=True)


def test_no_images() -> None:
    table = TableBuilder(CLASSES, "/images", source="a.json").build()
    assert len(table) == 0
    assert table.boxes_xywh.shape == (0, 4)
    assert table.class_index.shape == (0, 1)
    assert not table.has_masks
    assert not table.has_boxes
    assert list(table) == []


def test_an_image_without_instances_is_a_record() -> None:
    table = builder().build()
    assert len(table) == 1
    record = table[0]
    assert len(record) == 0
    assert record.boxes_xywh.shape == (0, 4)
    assert record.image_id == 1
    assert record.path == Path("/images/one.png")
    assert (record.stored_hw, record.size_hw, record.orientation) == ((20, 30), (20, 30), 1)
    assert not table.notes


def test_one_instance() -> None:
    table = one_instance([1.5, 2, 3, 4.25], 2, annotation_id=5, iscrowd=True, area=11.5)
    assert table.boxes_xywh.tolist() == [[1.5, 2, 3, 4.25]]
    assert (table.label.tolist(), table.area.tolist(), table.annotation_id.tolist()) == ([2], [11.5], [5])
    assert (table.iscrowd.tolist(), table.ignore.tolist()) == ([True], [False])
    dtypes = {name: getattr(table, name).dtype for name in ("boxes_xywh", "label", "area", "image_id", "orientation")}
    assert dtypes == {
        "boxes_xywh": np.float64, "label": np.int32, "area": np.float64, "image_id": np.int64, "orientation": np.int8,
    }  # fmt: skip


def test_instances_belong_to_their_images() -> None:
    table_builder = builder()
    table_builder.add_instance([0, 0, 1, 1], 1)
    table_builder.add_instance([0, 0, 2, 2], 1)
    table_builder.add_image("empty.png", (5, 6), image_id=90, group="g", split="val", orientation=6, stored_frame=True)
    table_builder.add_image("three.png", (7, 8), image_id=80, member="m", frame=4, class_index=1)
    table_builder.add_instance([0, 0, 3, 3], 2)
    table = table_builder.build()
    assert [record.boxes_xywh[:, 2].tolist() for record in table] == [[1, 2], [], [3]]
    assert table.image_id.tolist() == [1, 90, 80]
    assert table.record.tolist() == [0, 1, 2]
    assert (table[1].group, table[1].split, table[1].size_hw) == ("g", "val", (6, 5))
    assert (table[2].member, table[2].frame, table[2].class_index.tolist()) == ("m", 4, [1])
    assert table.stored_frame.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("box", "expected", "note"),
    [
        ([0, 0, 30, 20], [0, 0, 30, 20], ""),
        ([0.57, 0.1, 29.43, 19.9], [0.57, 0.1, 29.43, 19.9], ""),  # exact: decimals do not add up in binary
        ([29.9, 19.9, 0.1, 0.1], [29.9, 19.9, 0.1, 0.1], ""),
        ([-1, 2, 4, 5], [0, 2, 3, 5], "box clipped to the image"),
        ([1, -2.5, 4, 5], [1, 0, 4, 2.5], "box clipped to the image"),
        ([28, 2, 3, 5], [28, 2, 2, 5], "box clipped to the image"),
        ([28, 2, 2.0001, 5], [28, 2, 2, 5], "box clipped to the image"),
        ([-5, -5, 100, 100], [0, 0, 30, 20], "box clipped to the image"),
        ([1, 2, 0, 5], None, "box dropped: it has no width"),
        ([1, 2, 4, 0], None, "box dropped: it has no height"),
        ([4, 2, -3, 5], [1, 2, 3, 5], SORTED),
        ([4, 7, -3, -5], [1, 2, 3, 5], SORTED),
        ([30, 2, 4, 5], None, "box dropped: it is outside the image"),
        ([-9, 2, 9, 5], None, "box dropped: it is outside the image"),
        ([1, 50, 4, 5], None, "box dropped: it is outside the image"),
    ],
)
def test_boxes_are_added_clipped_or_dropped(box: list[float], expected: list[float] | None, note: str) -> None:
    table = one_instance(box, annotation_id=17)
    assert table.boxes_xywh.tolist() == ([] if expected is None else [expected])
    assert table.lost.objects == (expected is None)
    assert list(table.notes.counts) == ([note] if note else [])
    if note:
        assert "a.json, annotation 17 (one.png)" in table.notes.lines()[0]


def test_clipping_twice_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    for x, y, w, h in np.round(rng.uniform([-3, -3, 4, 4], [29, 19, 40, 40], (200, 4)), 2).tolist():
        once = one_instance([x, y, w, h])
        again = one_instance(once.boxes_xywh[0])
        assert again.boxes_xywh.tolist() == once.boxes_xywh.tolist()
        assert not again.notes


def test_strict_rejects_what_would_be_dropped_and_clips_the_rest() -> None:
    table_builder = builder(bad_instances="error")
    assert table_builder.add_instance([-1, 2, 4, 5], 1)
    with pytest.raises(
        DataError, match=r"a.json, annotation 17 \(one.png\): box \[12, 8, 0, 30\] has no width; remove"
    ):
        table_builder.add_instance([12, 8, 0, 30], 1, annotation_id=17)
    with pytest.raises(DataError, match="is outside the image"):
        table_builder.add_instance([40, 8, 1, 1], 1)
    with pytest.raises(DataError, match="choose drop, error or mend"):
        builder(bad_instances="ignore")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"box": [float("nan"), 0, 1, 1]}, "finite"),
        ({"box": [0, 0, float("inf"), 1]}, "finite"),
        ({"box": [0, 0, 1, 1], "area": float("nan")}, "finite"),
        ({"box": [0, 0, 1, 1], "label": 0}, r"label 0 is outside 1\.\.2"),
        ({"box": [0, 0, 1, 1], "label": 3}, r"label 3 is outside 1\.\.2"),
        ({"box": [0, 0, 1, 1], "segmentation": mask_to_rle(np.ones((30, 20)))}, r"RLE of size \[30, 20\]"),
    ],
)
@pytest.mark.parametrize("bad_instances", ["drop", "error"])
def test_always_rejected(arguments: dict[str, Any], message: str, bad_instances: str) -> None:
    options = dict(arguments)
    box, label = options.pop("box"), options.pop("label", 1)
    with pytest.raises(DataError, match=rf"^a.json, annotation 3 \(one.png\): .*{message}"):
        builder(bad_instances=bad_instances).add_instance(box, label, annotation_id=3, **options)


def test_neither_box_nor_segmentation() -> None:
    table_builder = builder()
    assert not table_builder.add_instance(None, 1, annotation_id=3)
    assert table_builder.notes.counts == {"box dropped: box, outline and keypoints are missing": 1}
    with pytest.raises(DataError, match=r"^a.json, annotation 3 \(one.png\): box, outline and keypoints are"):
        builder(bad_instances="error").add_instance(None, 1, annotation_id=3)


@pytest.mark.parametrize(
    ("segmentation", "box", "area"),
    [
        (SQUARE, [2, 1, 4, 4], 16),
        (mask_to_rle(np.eye(20, 30)), [0, 0, 20, 20], 20),
        ([*SQUARE, SQUARE[0] + 4], [2, 1, 8, 8], 31),  # one pixel is in both
    ],
)
def test_box_and_area_from_the_segmentation(segmentation: Any, box: list[float], area: float) -> None:
    table = one_instance(None, segmentation=segmentation)
    assert table.boxes_xywh.tolist() == [box]
    assert table.area[0] == pytest.approx(area, abs=1)
    assert table.has_masks
    assert one_instance([2, 1, 5, 5], segmentation=segmentation).area[0] == table.area[0]


def test_an_empty_mask_is_dropped() -> None:
    table = one_instance(None, segmentation=mask_to_rle(np.zeros((20, 30))))
    assert len(table.label) == 0
    assert list(table.notes.counts) == ["box dropped: it has no width"]


def test_area_defaults_to_that_of_the_clipped_box() -> None:
    assert one_instance([-1, 2, 4, 5]).area.tolist() == [15]
    assert one_instance([-1, 2, 4, 5], area=20).area.tolist() == [20]


def test_error_for_repeated_image_ids_lists_both_files() -> None:
    with pytest.raises(DataError, match=r"image id 1 is used by one.png and by two.png"):
        builder().add_image("two.png", (5, 5), image_id=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stored_hw": (0, 5)}, "5 x 0"),
        ({"stored_hw": (5, -1)}, "-1 x 5"),
        ({"stored_hw": (5, 10**7)}, "is not a valid size"),
        ({"image_id": 2**63}, "64 bits"),
        ({"class_index": 2}, r"class_index \[2\] is outside 0\.\.1"),
        ({"class_index": [0, 1]}, "2 class labels, expected 1"),
        ({"orientation": 9}, "orientation 9"),
    ],
)
def test_rejected_images(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        builder().add_image("two.png", **{"stored_hw": (5, 5), **arguments})


def test_several_label_fields() -> None:
    fields = (LabelField("colour", ClassMap(("red", "blue"))), LabelField("shape", ClassMap(("x", "y", "z"))))
    table_builder = TableBuilder(joined(fields), "", source="s", label_fields=fields)
    table_builder.add_image("a", (5, 5), class_index=(1, -1))
    table_builder.add_image("b", (5, 5))
    table_builder.add_image("c", (5, 5), class_index=(0, 2))
    table = table_builder.build()
    assert table.class_index.tolist() == [[1, -1], [-1, -1], [0, 2]]
    assert table.has_class_index
    assert table.fields == table.label_fields == table[2].label_fields == fields
    assert [values.tolist() for values in table.image_labels()] == [[0, 2, 2], [2, 1, 5]]
    assert table[2].class_names(table.class_map) == ["colour=red", "shape=z"]
    assert class_presence(table).astype(int).tolist() == [[0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 1]]
    for wrong, message in (((2, 0), r"\[2, 0\] is outside 0\.\.1, 0\.\.2"), (1, "1 class labels, expected 2")):
        with pytest.raises(DataError, match=message):
            table_builder.add_image("d", (5, 5), class_index=wrong)


def test_paths_are_relative_with_forward_slashes(tmp_path: Path) -> None:
    table_builder = TableBuilder(CLASSES, tmp_path, source="s")
    table_builder.add_image(tmp_path / "sub" / "a b é.png", (5, 5))
    table_builder.add_image(Path("sub/b.png"), (5, 5))
    table = table_builder.build()
    assert table.media.tolist() == ["sub/a b é.png", "sub/b.png"]
    assert table[0].path == tmp_path / "sub" / "a b é.png"


def test_keypoints() -> None:
    schema = keypoint_schema(["left_eye", "right_eye"])
    table_builder = builder(keypoint_schema=schema)
    table_builder.add_instance([0, 0, 5, 5], 1)
    table_builder.add_instance([0, 0, 5, 5], 1, keypoints=np.array([[1.0, 2, 2], [3, 4, 1]]))
    table = table_builder.build()
    assert table.keypoints is not None
    assert table.keypoints.shape == (2, 2, 3)
    assert table.keypoints[1].tolist() == [[1, 2, 2], [3, 4, 1]]
    assert not table.keypoints[0].any()
    for wrong in (np.zeros((3, 3)), np.full((2, 3), np.nan)):
        with pytest.raises(DataError, match="keypoints"):
            table_builder.add_instance([0, 0, 5, 5], 1, keypoints=wrong)
    assert builder(keypoint_schema=schema).build().keypoints is not None


def test_coco_keypoints_have_their_sigmas_and_swaps() -> None:
    pytest.importorskip("pycocotools")
    from pycocotools.cocoeval import Params

    from detseg.keypoints import COCO_NAMES

    schema = keypoint_schema(COCO_NAMES)
    np.testing.assert_allclose(schema.sigmas, Params("keypoints").kpt_oks_sigmas)
    assert schema.swaps == tuple((i, i + 1) for i in range(1, 17, 2))
    assert keypoint_schema(["Left_a", "b", "Right_a"]).swaps == ((0, 2),)
    assert keypoint_schema(["x", "y"]).sigmas == (0.05, 0.05)
