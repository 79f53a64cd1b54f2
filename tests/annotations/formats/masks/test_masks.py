"""Mask folders: layouts, meanings of values, classes, and mismatches between masks and images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from detseg.annotations import AnnotationTable, concatenate, read
from detseg.annotations.formats.coco.read import read_coco
from detseg.annotations.formats.masks.layout import MaskFolders, find_mask_folders, match
from detseg.annotations.formats.masks.read import read_masks
from detseg.errors import DataError
from detseg.masks import rasterize, rle_to_mask

HW = (40, 60)


def write_image(path: Path, size_hw: tuple[int, int] = HW, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.full((*size_hw, 3), 90, np.uint8)).save(path, exif=exif)


def write_mask(path: Path, values: npt.NDArray[np.integer]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def boxes_mask(*values: int, size_hw: tuple[int, int] = HW) -> npt.NDArray[np.uint8]:
    """Rectangles of 5 x 4 pixels in a row, one per value."""
    mask = np.zeros(size_hw, np.uint8)
    for i, value in enumerate(values):
        mask[2 + i : 7 + i, 6 * i + 1 : 6 * i + 5] = value
    return mask


def penn_fudan(root: Path, masks: dict[str, npt.NDArray[np.uint8]]) -> None:
    for name, mask in masks.items():
        write_image(root / "PNGImages" / f"{name}.png", mask.shape)
        write_mask(root / "PedMasks" / f"{name}_mask.png", mask)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], []),
        (["a.jpg"], []),
        (["a.jpg", "label/a.png"], [("", "label", "")]),
        (["PNGImages/a.png", "PedMasks/a_mask.png"], [("PNGImages", "PedMasks", "")]),
        (["img/a.jpg", "masks/a.png", "other/b.jpg"], [("img", "masks", "")]),
        (["photos 1/a.jpg", "annotations/a_square_0.png"], [("photos 1", "annotations", "")]),
        (["images/train/a.jpg", "masks/train/a.png"], [("images", "masks", "")]),
        (
            ["train/images/a.jpg", "train/masks/a.png", "valid/images/b.jpg", "valid/masks/b.png"],
            [("train/images", "train/masks", "train"), ("valid/images", "valid/masks", "val")],
        ),
        (["a.png", "a_mask.png"], [("", "", "")]),
        (["images/a.jpg", "labels/a.txt"], []),
        (["images/a.jpg", "masks/b.png"], []),
        (
            ["JPEGImages/a.jpg", "SegmentationClass/a.png", "SegmentationObject/a.png"],
            [("JPEGImages", "SegmentationClass", "")],
        ),
    ],
)
def test_layouts(files: list[str], expected: list[tuple[str, str, str]]) -> None:
    assert find_mask_folders(sorted(files)) == [MaskFolders(*pair) for pair in expected]


@pytest.mark.parametrize(
    ("image", "mask", "class_name", "one_of_many"),
    [
        ("a.jpg", "a.png", "", False),
        ("a b ü.jpg", "a b u\u0308_mask.png", "", False),
        ("a.jpg", "a_instances.PNG", "", False),
        ("1001.jpeg", "1001_square_2.png", "square", True),
        ("1001.jpeg", "1001_fire_truck_12.png", "fire_truck", True),
        ("1001.jpeg", "1001_3.png", "", True),
        ("1001.jpeg", "1001_mask_3.png", "", True),
        ("1001.jpeg", "1001_square.png", "square", True),
        ("sub/a.jpg", "sub/a.png", "", False),
    ],
)
def test_names(image: str, mask: str, class_name: str, one_of_many: bool) -> None:
    matches = match([image, "other.jpg"], [mask])
    (mask_file,) = matches.masks[image]
    assert (mask_file.class_name, mask_file.one_of_many) == (class_name, one_of_many)
    assert matches.without_mask == ["other.jpg"]


def test_a_mask_belongs_to_the_longest_image_name() -> None:
    matches = match(["img_1.jpg", "img_1_2.jpg"], ["img_1_2.png", "img_1_2_0.png", "img_1_7.png", "img_9.png"])
    files = {image: [mask.file for mask in masks] for image, masks in matches.masks.items()}
    assert files == {"img_1_2.jpg": ["img_1_2.png", "img_1_2_0.png"], "img_1.jpg": ["img_1_7.png"]}
    assert matches.without_image == ["img_9.png"]


def test_instance_ids(tmp_path: Path) -> None:
    penn_fudan(tmp_path, {"none": boxes_mask(), "one": boxes_mask(1), "двое людей": boxes_mask(1, 2)})
    table = read(tmp_path, mask_values="instance", classes=["person"])
    counts = {record.name: len(record) for record in table}
    assert counts == {"none.png": 0, "one.png": 1, "двое людей.png": 2}
    assert table.class_map.names == ("person",)
    assert table[1].boxes_xywh.tolist() == [[1, 2, 4, 5]]
    assert table[1].areas.tolist() == [20]
    assert table.has_masks
    assert not table.notes


def test_values_are_guessed_and_the_guess_is_noted(tmp_path: Path) -> None:
    penn_fudan(tmp_path, {"a": boxes_mask(1), "b": boxes_mask(1, 2), "c": boxes_mask(1, 2, 3)})
    table = read(tmp_path)
    assert table.instances_per_image().tolist() == [1, 2, 3]
    (line,) = table.notes.lines()
    assert "interpreted as instance" in line
    assert "--mask-values class or binary" in line
    assert "mask folder: images in PNGImages, masks in PedMasks" in table.source


def test_several_hundred_instances_in_one_image(tmp_path: Path) -> None:
    values = np.zeros((200, 300), np.uint16)
    for number in range(400):
        row, column = divmod(number, 25)
        values[row * 12 : row * 12 + 10, column * 12 : column * 12 + 10] = number + 1
    write_image(tmp_path / "images/a.png", values.shape)
    write_mask(tmp_path / "masks/a.png", values)
    table = read(tmp_path, mask_values="instance")
    assert len(table) == 1
    assert len(table[0]) == 400
    assert set(table[0].areas.tolist()) == {100.0}


def coco_open(shared_data: Path) -> AnnotationTable:
    tables = [read_coco(shared_data / f"coco_open/instances_{split}.json", split=split) for split in ("train", "val")]
    return concatenate(tables)


def test_a_penn_fudan_folder_of_real_masks(shared_data: Path, tmp_path: Path) -> None:
    """Masks of photos written as instance ids are read back unchanged, where no other object covers them."""
    expected: dict[str, list[npt.NDArray[np.uint8]]] = {}
    for record in coco_open(shared_data):
        ids = np.zeros(record.size_hw, np.uint8)
        for number, (segmentation, crowd) in enumerate(zip(record.segmentations, record.iscrowd, strict=True), start=1):
            assert segmentation is not None
            if not crowd:
                ids[rasterize(segmentation, record.size_hw, record.size_hw) > 0] = number
        name = record.path.stem
        (tmp_path / "PNGImages").mkdir(exist_ok=True)
        (tmp_path / "PNGImages" / record.path.name).symlink_to(record.path)
        write_mask(tmp_path / "PedMasks" / f"{name}_mask.png", ids)
        expected[name] = [(ids == value).astype(np.uint8) for value in np.unique(ids) if value]
    with pytest.raises(DataError, match=r"links to other folders are not followed .* pass --follow-links"):
        read(tmp_path)
    assert len(read(tmp_path, follow_links=True)) == len(expected)
    for link in (tmp_path / "PNGImages").iterdir():
        content = link.read_bytes()
        link.unlink()
        link.write_bytes(content)
    table = read(tmp_path, mask_values="instance")
    assert len(table) == 46
    for record in table:
        masks = [rle_to_mask(segmentation) for segmentation in record.segmentations]  # type: ignore[arg-type]
        assert len(masks) == len(expected[record.path.stem])
        assert all(np.array_equal(a, b) for a, b in zip(masks, expected[record.path.stem], strict=True))


def test_class_values_of_real_masks(shared_data: Path) -> None:
    table = read(shared_data / "oxford_pet_26", mask_values="class", classes=["cat", "dog"])
    assert len(table) == 26
    assert table.class_map.names == ("cat", "dog")
    assert (table.instances_per_image() >= 1).all()
    for record in table:
        label = 2 if record.path.name[0].islower() else 1  # naming rule of the data set: dog breeds are lower case
        assert set(record.labels.tolist()) == {label}, record.name
    values = np.asarray(Image.open(shared_data / "oxford_pet_26/label/Bombay_182.png"))
    (record,) = (record for record in table if record.path.stem == "Bombay_182")
    assert record.areas.sum() <= (values == 1).sum() < (values > 0).sum()
    guessed = read(shared_data / "oxford_pet_26")
    assert guessed.class_map.names == ("class 1", "class 2")
    assert guessed.boxes_xywh.tolist() == table.boxes_xywh.tolist()


def test_binary_files_with_classes_in_their_names(shared_data: Path) -> None:
    folder = shared_data / "shapes/shapes/train"
    table = read(folder, mask_values="binary")
    assert table.class_map.names == ("circle", "square")
    assert [record.labels.tolist() for record in table] == [[2], [1, 1, 2, 2]]
    first = cv2.imread(str(folder / "annotations/1000_square_0.png"), cv2.IMREAD_GRAYSCALE)
    assert table[0].segmentations[0] == coco_mask.encode(np.asfortranarray((first > 0).astype(np.uint8)))
    assert read(shared_data / "shapes").boxes_xywh.tolist() == table.boxes_xywh.tolist()
    squares = read(folder, classes=["square"])
    assert squares.instances_per_image().tolist() == [1, 2]
    assert any("unselected" in line for line in squares.notes.lines())
    with pytest.raises(DataError, match="no mask has the class star; file names contain circle, square"):
        read(folder, classes=["star"])


def test_binary_with_one_class_negatives_and_empty_files(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"images/{name}.jpg")
    write_mask(tmp_path / "masks/a.png", boxes_mask(255, 255))
    write_mask(tmp_path / "masks/b.png", boxes_mask())
    table = read(tmp_path, mask_values="binary", classes=["cell"])
    assert table.instances_per_image().tolist() == [1, 0, 0]
    assert table.class_map.names == ("cell",)
    lines = " ".join(table.notes.lines())
    assert "without mask file" in lines
    assert "images/c.jpg" in lines
    assert "without any object: masks/b.png" in lines


def test_masks_without_image_are_listed(tmp_path: Path) -> None:
    penn_fudan(tmp_path, {"a": boxes_mask(1)})
    write_mask(tmp_path / "PedMasks/zzz_mask.png", boxes_mask(1))
    write_image(tmp_path / "PedMasks/a.jpg")
    assert read(tmp_path, mask_values="instance").notes.lines() == [
        "1 x mask that is not PNG, TIFF or BMP left out: PedMasks/a.jpg",
        "1 x mask without image left out: PedMasks/zzz_mask.png",
    ]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mask_frame", ["stored", "upright"])
def test_exif_orientation(orientation: int, mask_frame: str, tmp_path: Path) -> None:
    """Masks of the stored size are rotated with the image, masks of the upright size are used unchanged."""
    already_upright = mask_frame == "upright" and orientation >= 5
    hw = (60, 40) if already_upright else (40, 60)
    write_image(tmp_path / "images/a.jpg", (40, 60), orientation)
    mask = boxes_mask(1, size_hw=hw)
    write_mask(tmp_path / "masks/a.png", mask)
    record = read(tmp_path, mask_values="instance")[0]
    expected = mask
    if not already_upright:
        image = Image.fromarray(mask)
        image.getexif()[0x0112] = orientation
        steps = {2: [0], 3: [3], 4: [1], 5: [5], 6: [4], 7: [6], 8: [2]}  # as in Pillow's ImageOps.exif_transpose
        for step in steps.get(orientation, []):
            image = image.transpose(Image.Transpose(step))
        expected = np.asarray(image)
    assert record.size_hw == expected.shape
    assert np.array_equal(rle_to_mask(record.segmentations[0]), expected)  # type: ignore[arg-type]


def case_missing(root: Path) -> None:
    for name in "abcdefg":
        write_image(root / f"images/{name}.jpg")
    write_mask(root / "masks/a.png", boxes_mask(1))


def case_size(root: Path) -> None:
    write_image(root / "images/a.jpg")
    write_mask(root / "masks/a.png", boxes_mask(1, size_hw=(40, 61)))


def case_value(root: Path) -> None:
    write_image(root / "images/a.jpg")
    write_mask(root / "masks/a.png", boxes_mask(1, 3))


def case_several(root: Path) -> None:
    write_image(root / "images/a.jpg")
    write_mask(root / "masks/a_0.png", boxes_mask(1))
    write_mask(root / "masks/a_1.png", boxes_mask(0, 1))


def case_colours(root: Path) -> None:
    write_image(root / "images/a.jpg")
    colours = np.dstack([boxes_mask(1), boxes_mask(2), boxes_mask(3)])
    write_mask(root / "masks/a.png", colours)


def case_truncated(root: Path) -> None:
    case_value(root)
    path = root / "masks/a.png"
    path.write_bytes(path.read_bytes()[:60])


def case_same_name(root: Path) -> None:
    write_image(root / "images/a.jpg")
    write_image(root / "images/a.png")
    write_mask(root / "masks/a.png", boxes_mask(1))


@pytest.mark.parametrize(
    ("case", "values", "classes", "message"),
    [
        (case_missing, "instance", None, r"6 of 7 images have no mask: images/b\.jpg, .*images/f\.jpg, \.\.\."),
        (case_size, "instance", None, r"masks/a\.png: the mask is 61 x 40 pixels .*images/a\.jpg is 60 x 40"),
        (case_value, "class", ["cat", "dog"], r"masks/a\.png, value 3 has no name: --classes has 2 names"),
        (case_value, "instance", ["cat", "dog"], "do not distinguish classes"),
        (case_value, "colour", None, "choose instance, class, binary"),
        (case_several, "instance", None, "1 images have more than one mask"),
        (case_colours, "class", None, r"masks/a\.png: .* this one has colours"),
        (case_truncated, None, None, r"a\.png: .*(corrupt|truncated)"),
        (case_same_name, "instance", None, "1 images differ from another image only in their suffix"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_rejected(case: object, values: str | None, classes: list[str] | None, message: str, tmp_path: Path) -> None:
    case(tmp_path)  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        read(tmp_path, format="masks", mask_values=values, classes=classes)


def test_a_separate_image_folder_and_splits_in_subfolders(tmp_path: Path) -> None:
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        write_image(tmp_path / f"my images/{split}/{name}.jpg")
        write_mask(tmp_path / f"data/masks/{split}/{name}.png", boxes_mask(1, 2))
    table = read(tmp_path / "data", images=tmp_path / "my images", mask_values="class")
    assert table.split.tolist() == ["train", "train", "val"]
    assert all(record.path.is_file() for record in table)
    direct = read_masks(tmp_path / "my images", tmp_path / "data/masks", values="class")
    assert direct.label.tolist() == table.label.tolist() == [1, 2] * 3


def test_split_folders_share_their_classes(tmp_path: Path) -> None:
    for split, values in (("train", (1, 2)), ("val", (2, 5))):
        write_image(tmp_path / f"{split}/images/a.jpg")
        write_mask(tmp_path / f"{split}/masks/a.png", boxes_mask(*values))
    table = read(tmp_path, mask_values="class")
    assert table.class_map.names == ("class 1", "class 2", "class 5")
    assert table.class_map.category_ids == (1, 2, 5)
    assert table.split.tolist() == ["train", "val"]
    assert [record.labels.tolist() for record in table] == [[1, 2], [2, 3]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"no mask contains an object, so there is no class"),
        ([255], r"only 255 \(PedMasks/a_mask\.png\), which is ignored .*write 1 instead, or pass --mask-values binary"),
    ],
)
def test_masks_without_classes(values: list[int], message: str, tmp_path: Path) -> None:
    penn_fudan(tmp_path, {"a": boxes_mask(*values), "b": boxes_mask()})
    with pytest.raises(DataError, match=message):
        read(tmp_path, mask_values="class")
    if values:  # passing the class must not make a black-and-white data set one without objects
        with pytest.raises(DataError, match=message):
            read(tmp_path, mask_values="class", classes=["cell"])
    else:
        assert len(read(tmp_path, mask_values="class", classes=["cell"]).label) == 0


def test_the_ignored_value_next_to_a_class_stays_ignored(tmp_path: Path) -> None:
    penn_fudan(tmp_path, {"a": boxes_mask(255), "b": boxes_mask(1, 255)})
    assert read(tmp_path, mask_values="class").label.tolist() == [1]
