"""Masks with names beside them (CamVid, LabelMe), and exports of Pascal VOC and CVAT with masks of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from detseg.annotations import read
from detseg.annotations.formats.masks.decode import voc_colours
from detseg.annotations.formats.masks.layout import match
from detseg.cli import main
from detseg.errors import DataError

HW = (48, 64)
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nbolt:250,50,83::\nnut:50,250,83::\n"
COLOURS = ((0, 0, 0), (250, 50, 83), (50, 250, 83))
VOC = {value: (colour >> 16, colour >> 8 & 255, colour & 255) for colour, value in voc_colours().items()}


def boxes(*values: int, dtype: type = np.uint8) -> npt.NDArray[np.integer]:
    """Squares of 10 x 10 pixels that touch each other, one per value."""
    mask = np.zeros(HW, dtype)
    for i, value in enumerate(values):
        mask[20:30, 2 + 10 * i : 12 + 10 * i] = value
    return mask


def coloured(
    mask: npt.NDArray[np.integer], colours: Mapping[int, Sequence[int]] | Sequence[Sequence[int]]
) -> Image.Image:
    image = np.zeros((*mask.shape, 3), np.uint8)
    for value in np.unique(mask).tolist():
        image[mask == value] = colours[value]
    return Image.fromarray(image)


def palette(
    mask: npt.NDArray[np.integer], colours: Mapping[int, Sequence[int]] | Sequence[Sequence[int]]
) -> Image.Image:
    image = Image.fromarray(mask.astype(np.uint8), "L")
    image.putpalette([channel for value in range(min(256, len(colours))) for channel in colours[value]])
    return image


def save(path: Path, image: Image.Image | npt.NDArray[np.integer]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)


def export(root: Path, kind: str, labelmap: str | None = LABELMAP) -> Path:
    """Image a: two bolts and a nut that touch; b: a nut; c and d without masks; "grey", "palette" or "rgb" files."""
    draw = {"grey": lambda mask, _: mask, "palette": palette, "rgb": coloured}[kind]
    for name, classes, objects in (("a", (1, 1, 2), (1, 2, 3)), ("b", (2,), (1,))):
        save(root / f"SegmentationClass/{name}.png", draw(boxes(*classes), COLOURS if labelmap else VOC))
        save(root / f"SegmentationObject/{name}.png", draw(boxes(*objects), VOC))
    for name in "abcd":
        save(root / f"JPEGImages/{name}.jpg", Image.new("L", HW[::-1]))
    if labelmap:
        (root / "labelmap.txt").write_text(labelmap)
    return root


@pytest.mark.parametrize("kind", ["grey", "palette", "rgb"])
@pytest.mark.parametrize(("labelmap", "values"), [(LABELMAP, None), (None, None), (LABELMAP, "instance")])
def test_objects_beside_classes(kind: str, labelmap: str | None, values: str | None, tmp_path: Path) -> None:
    table = read(export(tmp_path, kind, labelmap), mask_values=values)
    assert "masks in SegmentationClass and SegmentationObject" in table.source
    assert table.class_map.names == (("bolt", "nut") if labelmap else ("class 1", "class 2"))
    assert {record.path.stem: record.labels.tolist() for record in table} == {"a": [1, 1, 2], "b": [2]}
    assert table[0].boxes_xywh.tolist() == [[2, 20, 10, 10], [12, 20, 10, 10], [22, 20, 10, 10]]
    assert table.notes.counts == {
        "image without a mask left out": 2,
        "objects read from SegmentationObject, their classes from SegmentationClass": 1,
    }
    regions = read(tmp_path, mask_values="class")  # the control, and what the note offers
    assert {record.path.stem: record.labels.tolist() for record in regions} == {"a": [1, 2], "b": [2]}


def test_convert_and_images_elsewhere(tmp_path: Path) -> None:
    export(tmp_path / "set", "rgb")
    (tmp_path / "set/JPEGImages").rename(tmp_path / "images")
    options = ["--to", "coco", "--images", str(tmp_path / "images"), "--format", "masks"]
    assert main(["convert", str(tmp_path / "set"), str(tmp_path / "coco"), *options]) == 0
    table = read(tmp_path / "coco", images=tmp_path)
    assert (table.class_map.names, table.instances_per_image().sum()) == (("bolt", "nut"), 4)


def test_selected_classes_and_own_names(tmp_path: Path) -> None:
    export(tmp_path, "rgb")
    table = read(tmp_path, classes=["nut"])
    assert [record.labels.tolist() for record in table] == [[1], [1]]
    assert table.notes.counts["object of an unselected class left out"] == 2
    assert read(tmp_path, classes=["screw", "washer"]).class_map.names == ("screw", "washer")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2)])
def test_order_of_the_labelmap(order: tuple[int, ...], tmp_path: Path) -> None:
    lines = LABELMAP.splitlines()[1:]
    export(tmp_path, "rgb", "\n".join(lines[i] for i in order))
    table = read(tmp_path)
    names = [table.class_map.names[label - 1] for label in table[0].labels]
    assert names == ["bolt", "bolt", "nut"]


def test_the_border_and_objects_without_a_class(tmp_path: Path) -> None:
    export(tmp_path, "palette", None)
    for folder in ("SegmentationClass", "SegmentationObject"):
        mask = boxes(1, 255, 2, *([3] if folder == "SegmentationObject" else []))
        save(tmp_path / folder / "a.png", palette(mask, VOC))
    table = read(tmp_path)
    assert table[0].labels.tolist() == [1, 2]
    assert table.notes.counts["object without a class in SegmentationClass left out"] == 1


@pytest.mark.parametrize("number", [3, 300, 70_000])
def test_colours_of_objects_outside_the_palette(number: int, tmp_path: Path) -> None:
    export(tmp_path, "rgb")
    colours = {0: (0, 0, 0), 1: (1, 2, 3), 2: (9, 9, 9), 3: (number >> 16, number >> 8 & 255, number & 255)}
    save(tmp_path / "SegmentationObject/a.png", coloured(boxes(1, 2, 3), colours))
    assert read(tmp_path)[0].labels.tolist().count(1) == 2


def test_colours_that_the_labelmap_does_not_list(tmp_path: Path) -> None:
    export(tmp_path, "rgb", LABELMAP.replace("nut:50,250,83::\n", ""))
    with pytest.raises(DataError, match=r"a\.png: 100 pixels have 1 colours .*labelmap\.txt.* NAME:50,250,83::"):
        read(tmp_path)
    with (tmp_path / "labelmap.txt").open("a") as file:
        file.write("nut:50,250,83::\n")  # the remedy
    assert read(tmp_path).class_map.names == ("bolt", "nut")
    (tmp_path / "labelmap.txt").unlink()
    with pytest.raises(DataError, match=r"this one has colours .* or list the colours in a labelmap\.txt"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bolt:250,50::\n", r"labelmap\.txt: the colour '250,50' of bolt is not three numbers"),
        ("bolt:250,50,256::\n", "is not three numbers from 0 to 255"),
        ("bolt:1,2,3::\nnut:1,2,3::\n", "two names have the same colour"),
        ("bolt:1,2,3::\nbolt:1,2,4::\n", "the name 'bolt' is there twice"),
    ],
)
def test_broken_labelmaps(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(export(tmp_path, "rgb", text))


@pytest.mark.parametrize(
    ("lists", "splits"),
    [
        ({"train": "a\n", "val": "b\n"}, ["train", "val"]),
        ({"train": "a\n", "val": "b\n", "trainval": "a\nb\n"}, ["train", "val"]),
        ({"trainval": "a\nb\n"}, ["train", "train"]),
        ({"default": "a\nb\n"}, ["", ""]),
        ({}, ["", ""]),
    ],
)
def test_splits_of_segmentation_lists(lists: dict[str, str], splits: list[str], tmp_path: Path) -> None:
    export(tmp_path, "rgb")
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    for name, text in lists.items():
        (tmp_path / f"ImageSets/Segmentation/{name}.txt").write_text(text)
    assert read(tmp_path).split.tolist() == splits


def test_an_image_in_two_segmentation_lists(tmp_path: Path) -> None:
    export(tmp_path, "rgb")
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    for name in ("train", "val"):
        (tmp_path / f"ImageSets/Segmentation/{name}.txt").write_text("a\n")
    with pytest.raises(DataError, match=r"val\.txt: a is also in the list of train"):
        read(tmp_path)


def test_voc_boxes_and_the_masks_beside_them(tmp_path: Path) -> None:
    """With XML files the boxes are read; the note says how the masks are read."""
    export(tmp_path, "palette", None)
    size = f"<size><width>{HW[1]}</width><height>{HW[0]}</height><depth>3</depth></size>"
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    (tmp_path / "Annotations").mkdir()
    for name in "abcd":
        text = f"<annotation><filename>{name}.jpg</filename>{size}<object><name>x</name>{box}</object></annotation>"
        (tmp_path / f"Annotations/{name}.xml").write_text(text)
    table = read(tmp_path)
    assert table.instances_per_image().tolist() == [1] * 4
    assert "masks in SegmentationObject not read (use --format masks)" in table.notes.counts
    assert read(tmp_path, format="masks").instances_per_image().tolist() == [3, 1]


CODES = "Animal\nArchway\nBicyclist\nBridge\nVoid\nWall\n"


def camvid(root: Path, text: str = CODES, file: str = "codes.txt", values: Sequence[Sequence[int]] = ()) -> Path:
    """images/X.png and labels/X_P.png, all pixels of a class: value 0 is a class too."""
    for name, stripes in zip(("a", "b_1"), values or ((0, 1, 4, 5), (0, 2, 3, 5)), strict=True):
        mask = np.repeat(np.array(stripes, np.uint8), HW[1] // len(stripes))[None].repeat(HW[0], axis=0)
        save(root / f"labels/{name}_P.png", mask)
        save(root / f"images/{name}.png", Image.new("L", HW[::-1]))
    (root / file).write_text(text)
    return root


@pytest.mark.parametrize("file", ["codes.txt", "class_names.txt", "labels/codes.txt", "Classes.txt", "labelmap.txt"])
def test_camvid(file: str, tmp_path: Path) -> None:
    table = read(camvid(tmp_path, file=file))
    assert table.class_map.names == ("Animal", "Archway", "Bicyclist", "Bridge", "Wall")
    names = [[table.class_map.names[label - 1] for label in record.labels] for record in table]
    assert names == [["Animal", "Archway", "Wall"], ["Animal", "Bicyclist", "Bridge", "Wall"]]
    lines = " ".join(table.notes.lines())
    assert f"interpreted as class: {file} has 5 names" in lines
    assert "0 read as a class, not as background: Animal" in lines
    assert "value whose name is not a class ignored: 4 (Void)" in lines
    assert "ending of all mask names not used as a class: P" in lines
    own = read(tmp_path, mask_values="class", classes=list("12345"))  # the remedy for 0
    assert own[0].labels.tolist() == [1, 4, 5]


def test_the_old_rule_for_camvid(tmp_path: Path) -> None:
    """Control: a name longer than that of its image used to be a class, and the mask one object."""
    camvid(tmp_path)
    old = match(["a.png"], ["a_P.png"]).masks["a.png"][0]  # one mask alone does not show that all have the suffix
    assert (old.class_name, old.one_of_many) == ("P", True)
    both = match(["a.png", "b_1.png"], ["a_P.png", "b_1_P.png"])
    assert [mask.class_name for masks in both.masks.values() for mask in masks] == ["", ""]
    assert both.common_suffix == "P"
    classes = match(["a.png", "b_1.png"], ["a_P.png", "b_1_Q.png"])
    assert [mask.class_name for masks in classes.masks.values() for mask in masks] == ["P", "Q"]
    numbered = match(["a.png", "b_1.png"], ["a_P_0.png", "b_1_P_0.png"])
    assert [mask.class_name for masks in numbered.masks.values() for mask in masks] == ["P", "P"]


def test_a_common_suffix_of_one_object_per_file(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / f"images/{name}.png", Image.new("L", HW[::-1]))
        save(tmp_path / f"masks/{name}_cat.png", boxes(255))
    assert read(tmp_path).class_map.names == ("object",)
    assert read(tmp_path, classes=["cat"]).class_map.names == ("cat",)  # what the note offers


@pytest.mark.parametrize(
    ("text", "values", "names"),
    [
        ("_background_\ncat\ndog\n", ((0, 0, 1, 2), (0, 0, 1, 1)), ("cat", "dog")),  # LabelMe
        ("__ignore__\n_background_\ncat\ndog\n", ((0, 0, 1, 2), (0, 0, 1, 1)), ("cat", "dog")),
        ("cat\ndog\n", ((0, 0, 1, 2), (0, 0, 1, 1)), ("cat", "dog")),  # one value more than names
        ("cat\ndog\n", ((0, 0, 0, 1), (0, 0, 0, 1)), ("cat", "dog")),  # most pixels are 0
        ("cat\ndog\n", ((0, 1, 1, 1), (0, 1, 1, 1)), ("cat", "dog")),  # 0 is cat
        ("_background_\ncell\n", ((0, 0, 1, 1), (0, 0, 1, 1)), ("cell",)),
        ("cell\n", ((0, 0, 255, 0), (0, 255, 0, 0)), ("cell",)),
        ("a\nb\nc\n", ((0, 0, 255, 0), (0, 255, 0, 0)), ("object",)),  # names of something else
        ("a\nb\n", ((0, 3, 9, 0), (0, 3, 9, 0)), ("class 3", "class 9")),
    ],
)
def test_names_fit_the_values(
    text: str, values: Sequence[Sequence[int]], names: tuple[str, ...], tmp_path: Path
) -> None:
    table = read(camvid(tmp_path, text, "class_names.txt", values))
    assert table.class_map.names == names
    zero_is_class = "0 read as a class, not as background" in table.notes.counts
    assert zero_is_class is (values[0] == (0, 1, 1, 1))
    assert table[0].labels.tolist()[0] == 1


def test_a_value_without_a_name(tmp_path: Path) -> None:
    camvid(tmp_path, values=((0, 1, 4, 5), (0, 2, 3, 9)))
    with pytest.raises(DataError, match=r"b_1_P\.png, value 9 has no name|--classes"):
        read(tmp_path, mask_values="class", classes=["x", "y"])
    assert "names of values not used: the masks have other values" in read(tmp_path).notes.counts


@pytest.mark.parametrize("case", ["S10_palette_voc", "S13_cvat_segmask"])
def test_field_cases(case: str, shared_data: Path) -> None:
    folder = shared_data / "field_cases" / case
    if not folder.is_dir():
        pytest.skip(f"{folder} is not present")
    table = read(folder)
    assert table.instances_per_image().tolist() == [2, 2]
    assert table.class_map.names == (("bolt",) if "S13" in case else ("class 1", "class 2"))
    for record in table:
        path = folder / "SegmentationObject" / f"{record.path.stem}.png"
        objects = cv2.cvtColor(np.array(Image.open(path).convert("RGB")), cv2.COLOR_RGB2GRAY)
        for rle in record.segmentations:
            inside = coco_mask.decode(rle) > 0  # type: ignore[arg-type]
            assert len(np.unique(objects[inside])) == 1


def test_a_datumaro_sample(shared_data: Path) -> None:
    folder = shared_data / "datumaro_assets/assets/voc_dataset/voc_dataset1"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not present")
    table = read(folder, format="masks")
    assert [(record.path.stem, len(record)) for record in table] == [("2007_000001", 1)]
    assert table.class_map.category_ids == (2,)
    assert table.split.tolist() == ["train"]
    assert table.notes.counts["image without a mask left out"] == 1
