"""Writers of labelling tools' formats: written data is read back, and losses are reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.csv.boxes import find_csv_boxes, read_csv_boxes
from detseg.annotations.formats.csv.landmarks import find_csv_landmarks, read_csv_landmarks
from detseg.annotations.formats.csv.write import write_csv_boxes, write_csv_landmarks
from detseg.annotations.formats.cvat.read import find_cvat, read_cvat
from detseg.annotations.formats.cvat.write import write_cvat
from detseg.annotations.formats.labelme.read import find_labelme, read_labelme
from detseg.annotations.formats.labelme.write import write_labelme
from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.formats.via.read import find_via, read_via
from detseg.annotations.formats.via.write import write_via
from detseg.annotations.listing import list_files
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.keypoints import keypoint_schema
from detseg.masks import mask_to_rle, segmentation_to_rle

HW = (20, 30)
RING = np.array([[2.1, 3.25], [12.7, 3.25], [11.9, 9.05]])
SECOND = np.array([[20.0, 10], [25, 10], [25, 15]])

Format = tuple[Callable[..., WriteResult], Callable[..., AnnotationTable], Callable[..., str | None]]
FORMATS: dict[str, Format] = {
    "csv_boxes": (write_csv_boxes, read_csv_boxes, find_csv_boxes),
    "labelme": (write_labelme, read_labelme, find_labelme),
    "cvat": (write_cvat, read_cvat, find_cvat),
    "via": (write_via, read_via, find_via),
}
WITH_SPLITS = ("csv_boxes", "labelme", "cvat")


@pytest.fixture(params=list(FORMATS))
def form(request: pytest.FixtureRequest) -> Format:
    return FORMATS[request.param]


def builder(root: Path, **options: Any) -> TableBuilder:
    return TableBuilder(ClassMap(("cell", "Zähler & <co>", "axon")), root, source="test", **options)


def small_table(root: Path, splits: tuple[str, ...] = ("", "", ""), orientation: int = 1) -> AnnotationTable:
    table_builder = builder(root)
    names = ["ä b.jpg", "sub/ä b.jpg", "sub/deeper/c,d.jpg"]
    for name, split in zip(names, splits, strict=True):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", HW[::-1]).save(path, exif=exif)
        table_builder.add_image(name, HW, split=split, orientation=orientation)
        if name == names[1]:
            continue  # a negative image
        table_builder.add_instance([1, 2.5, 3, 4.125], 1)
        table_builder.add_instance([0.1, 0.2, 10.3, 7.7], 2)
        table_builder.add_instance([5, 5, 1, 1], 3)
    return table_builder.build()


def write_and_read(table: AnnotationTable, folder: Path, form: Format) -> tuple[AnnotationTable, WriteResult]:
    written = form[0](table, folder)
    for name, path in zip(table.media, written.images, strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes((table.root / str(name)).read_bytes())
    assert form[2](folder, list_files(folder))
    return form[1](folder), written


def summary(table: AnnotationTable) -> list[Any]:
    """Name, split, size and classes of each image, sorted: the order of records depends on the format."""
    images = []
    for row, record in enumerate(table):
        names = [table.class_map.name_of(int(label)) for label in record.labels]
        images.append((str(table.media[row]).removeprefix("images/"), record.split, record.size_hw, names))
    return sorted(images)


def boxes(table: AnnotationTable) -> np.ndarray[Any, Any]:
    order = np.argsort(np.array([str(name).removeprefix("images/") for name in table.media]), kind="stable")
    return table.boxes_xywh[table.subset(order).instance_rows()]


def test_round_trip(tmp_path: Path, form: Format) -> None:
    table = small_table(tmp_path / "in")
    again, written = write_and_read(table, tmp_path / "out", form)
    assert summary(again) == summary(table)
    np.testing.assert_allclose(boxes(again), boxes(table), rtol=0, atol=1e-14)
    assert not written.notes
    assert not again.notes
    if form[0] in (write_csv_boxes, write_cvat):  # formats with a class list
        assert again.class_map == table.class_map


def test_exactly_representable_corners_are_read_back_exactly(tmp_path: Path, form: Format) -> None:
    table_builder = builder(tmp_path / "in")
    (tmp_path / "in").mkdir()
    Image.new("RGB", HW[::-1]).save(tmp_path / "in" / "a.png")
    table_builder.add_image("a.png", HW)
    for i in range(15):
        table_builder.add_instance([i, i / 4, 15 - i / 2, 20 - i], 1)
    again, _ = write_and_read(table_builder.build(), tmp_path / "out", form)
    assert again.boxes_xywh.tolist() == table_builder.build().boxes_xywh.tolist()


def test_a_table_without_images(tmp_path: Path, form: Format) -> None:
    table = builder(tmp_path).build()
    written = form[0](table, tmp_path / "out")
    assert written.images == []
    if form[0] is not write_labelme:  # LabelMe has one file per image
        assert len(form[1](tmp_path / "out")) == 0


@pytest.mark.parametrize("name", FORMATS)
def test_splits(tmp_path: Path, name: str) -> None:
    table = small_table(tmp_path / "in", ("train", "val", "test"))
    again, written = write_and_read(table, tmp_path / "out", FORMATS[name])
    has_splits = sorted(again.split.tolist()) == ["test", "train", "val"]
    assert has_splits is (name in WITH_SPLITS)
    assert written.notes.counts == ({} if has_splits else {"split of an image not written": 3})


@pytest.mark.parametrize("orientation", [3, 6])
def test_images_rotated_by_exif(tmp_path: Path, form: Format, orientation: int) -> None:
    table = small_table(tmp_path / "in", orientation=orientation)
    again, _ = write_and_read(table, tmp_path / "out", form)
    np.testing.assert_allclose(boxes(again), boxes(table), rtol=0, atol=1e-14)
    assert summary(again) == summary(table)


def masked(root: Path) -> AnnotationTable:
    table_builder = builder(root)
    root.mkdir()
    Image.new("RGB", HW[::-1]).save(root / "a.png")
    table_builder.add_image("a.png", HW)
    pixels = np.zeros(HW, np.uint8)
    pixels[3:9, 4:11] = np.eye(6, 7) + np.eye(6, 7, 1)
    table_builder.add_instance(None, 1, segmentation=[RING])
    table_builder.add_instance(None, 2, segmentation=[RING, SECOND])
    table_builder.add_instance(None, 3, segmentation=mask_to_rle(pixels))
    return table_builder.build()


@pytest.mark.parametrize(
    ("name", "rows_with_masks", "notes"),
    [
        ("csv_boxes", [], {"mask not written, only its box": 3}),
        ("labelme", [0, 1, 2], {}),
        # the mask of two rings has whole pixels, so its box is not the one around the points
        (
            "cvat",
            [0, 1, 2],
            {
                "polygon of several rings written as a mask": 1,
                "box that differs from its outline not written": 1,
            },
        ),
        ("via", [0], {"mask that is not a single polygon not written, only its box": 2}),
    ],
)
def test_masks(tmp_path: Path, name: str, rows_with_masks: list[int], notes: dict[str, int]) -> None:
    table = masked(tmp_path / "in")
    again, written = write_and_read(table, tmp_path / "out", FORMATS[name])
    assert written.notes.counts == notes
    assert np.flatnonzero(again.segmentation.present()).tolist() == rows_with_masks
    for row in rows_with_masks:
        before, after = table.segmentation[row], again.segmentation[row]
        assert before is not None
        assert after is not None
        assert segmentation_to_rle(after, HW) == segmentation_to_rle(before, HW)
    if 0 in rows_with_masks:
        assert again.boxes_xywh[0].tolist() == table.boxes_xywh[0].tolist()


@pytest.mark.parametrize("name", FORMATS)
def test_what_cannot_be_written_is_noted(tmp_path: Path, name: str) -> None:
    table_builder = TableBuilder(ClassMap(("a",), (7,)), tmp_path, source="t", keypoint_schema=keypoint_schema(["tip"]))
    table_builder.add_image("a.png", HW, group="patient 1")
    table_builder.add_instance([1, 2, 10, 10], 1, iscrowd=True)
    table_builder.add_instance([1, 2, 10, 10], 1, ignore=True)
    table_builder.add_instance([1, 2, 10, 10], 1, difficult=True, area=55.5, keypoints=np.array([[1, 2, 2.0]]))
    table_builder.add_instance([1, 2, 10, 10], 1, segmentation=[RING])
    counts = FORMATS[name][0](table_builder.build(), tmp_path / "out").notes.counts
    assert counts.pop("crowd region not written") == 1
    assert counts.pop("ignored instance not written") == 1
    assert counts.pop("keypoints not written") == 2
    assert counts.pop("area not written: readers compute it from the outline") == 1
    assert counts.pop("group of an image not written") == 1
    assert counts.pop("category ids not written", 0) == (name != "csv_boxes")
    assert counts.pop("difficult flag of an instance not written", 0) == (name != "labelme")
    rest = "mask not written, only its box" if name == "csv_boxes" else "box that differs from its outline"
    assert [kind for kind in counts if not kind.startswith(rest)] == []


def test_folders_and_tables_that_cannot_be_written(tmp_path: Path, form: Format) -> None:
    table = small_table(tmp_path / "in")
    with pytest.raises(DataError, match="the folder is not empty; choose a new one"):
        form[0](table, tmp_path / "in")
    for media, message in ((["", "b", "c"], "not a separate image file"), (["../a.png", "b", "c"], "is outside"),
                           (["/a.png", "b", "c"], "is outside"), (["a", "a", "c"], "occurs twice")):  # fmt: skip
        other = replace(table, media=np.array(media, np.dtypes.StringDType()))
        with pytest.raises(DataError, match=message):
            form[0](other, tmp_path / "out")
    whole = replace(table, class_index=np.zeros((3, 1), np.int64))
    with pytest.raises(DataError, match="cannot store the classes of whole images"):
        form[0](whole, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_that_differ_only_in_their_suffix(tmp_path: Path) -> None:
    table_builder = builder(tmp_path)
    table_builder.add_image("x/a.jpg", HW)
    table_builder.add_image("x/a.png", HW)
    with pytest.raises(DataError, match=r"x/a.jpg and x/a.png would have the same LabelMe file; rename one"):
        write_labelme(table_builder.build(), tmp_path / "out")


def test_a_name_that_xml_cannot_hold(tmp_path: Path) -> None:
    table_builder = TableBuilder(ClassMap(("a\x01",)), tmp_path, source="t")
    table_builder.add_image("a.png", HW)
    with pytest.raises(DataError, match="contains a character that XML does not allow"):
        write_cvat(table_builder.build(), tmp_path / "out")


def test_landmarks(tmp_path: Path) -> None:
    schema = keypoint_schema(["left eye", "right eye"], [(0, 1)])
    table_builder = builder(tmp_path / "in", keypoint_schema=schema)
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", HW[::-1]).save(tmp_path / "in" / name)
    table_builder.add_image("a.png", HW, split="train")
    table_builder.add_instance([1, 2, 3.5, 4], 2, keypoints=np.array([[1.1, 2.2, 2], [3, 4, 1]]))
    table_builder.add_instance([1, 2, 3, 4], 1)
    table_builder.add_image("b.png", HW, split="val")
    table = table_builder.build()
    form = (write_csv_landmarks, read_csv_landmarks, find_csv_landmarks)
    again, written = write_and_read(table, tmp_path / "out", form)
    assert written.notes.counts == {"skeleton of the keypoints not written": 1}
    assert summary(again) == summary(table)
    np.testing.assert_array_equal(again.keypoints, table.keypoints)
    np.testing.assert_array_equal(again.boxes_xywh, table.boxes_xywh)
    assert again.keypoint_schema is not None
    assert again.keypoint_schema.names == ("left_eye", "right_eye")
    with pytest.raises(DataError, match="no keypoints to write"):
        write_csv_landmarks(small_table(tmp_path / "none"), tmp_path / "out2")
