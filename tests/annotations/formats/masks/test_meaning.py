"""The meaning of mask values by pixel counts: grey rims, JPEG, regions, and 255; for every way to read a data set."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from detseg.annotations import AnnotationTable, read
from detseg.annotations.formats.shared.value_counts import count_values, threshold_of
from detseg.annotations.from_options import load_table
from detseg.cli import main
from detseg.errors import DataError
from detseg.options import ConvertConfig, EvaluateConfig, InspectConfig, TrainConfig, TransferConfig

Mask = npt.NDArray[np.uint8]

DISCS = ((20, 22, 9), (60, 40, 12), (30, 90, 11))
"""Row, column and radius of three objects that are apart, in an image of 96 x 128 pixels."""


def discs(values: Sequence[int] = (255, 255, 255), shift: int = 0) -> Mask:
    mask = np.zeros((96, 128), np.uint8)
    for (row, column, radius), value in zip(DISCS, values, strict=False):
        cv2.circle(mask, (column + shift, row), radius, value, -1)
    return mask


def blurred(mask: Mask, sigma: float = 1.5) -> Mask:
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), sigma), np.uint8)


def resized(mask: Mask, factor: float = 1.7) -> Mask:
    return np.asarray(cv2.resize(mask, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR), np.uint8)


def antialiased(mask: Mask) -> Mask:
    large = cv2.resize(mask, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    large = cv2.warpAffine(large, np.array([[1.0, 0, 1.5], [0, 1.0, 2.5]]), large.shape[::-1])
    return np.asarray(cv2.resize(large, mask.shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def jpeg(mask: Mask, quality: int) -> Mask:
    """The values after JPEG compression."""
    return np.array(Image.open(io.BytesIO(jpeg_bytes(mask, quality))))


def jpeg_bytes(mask: Mask, quality: int = 75) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "JPEG", quality=quality)
    return file.getvalue()


def bordered(values: Sequence[int], width: int = 3) -> Mask:
    """Objects with a border of 255 around them, as in Pascal VOC."""
    mask = discs(values)
    inside = (mask > 0).astype(np.uint8)
    border = cv2.dilate(inside, np.ones((width, width), np.uint8)) - inside
    return np.where(border > 0, 255, mask).astype(np.uint8)


def write_set(
    root: Path,
    masks: Mapping[str, npt.NDArray[np.generic] | bytes],
    folder: str = "masks",
    images: str = "images",
    texts: Mapping[str, str] | None = None,
) -> Path:
    """Write masks by file name, a grey image for each (the part of the name before the first ``_`` or ``.``), texts."""
    for name, mask in masks.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / images).mkdir(parents=True, exist_ok=True)
        if isinstance(mask, bytes):
            (root / folder / name).write_bytes(mask)
            shape = np.array(Image.open(io.BytesIO(mask))).shape
        else:
            Image.fromarray(mask).save(root / folder / name)
            shape = mask.shape
        stem = name.partition(".")[0].partition("_")[0]
        Image.new("L", (shape[1], shape[0]), 90).save(root / images / f"{stem}.jpg")
    for name, text in (texts or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def old_counts(masks: Sequence[Mask]) -> list[int]:
    """Objects per mask by the rule that decided by the set of values: the control of tests of counts."""
    sets = [frozenset(np.unique(mask).tolist()) - {0} for mask in masks]
    every = frozenset().union(*sets)
    if every in ({1}, {255}):
        return [1 for _ in masks]
    small_and_255 = 255 in every and not any(100 <= value < 255 for value in every)
    few = len(every) <= 32 and len(sets) > 1
    if small_and_255 or (few and (any(max(s) != len(s) for s in sets) or all(s == every for s in sets))):
        return [_regions(mask, s - {255}) for mask, s in zip(masks, sets, strict=True)]
    return [len(s - {255}) if 254 not in s else len(s) for s in sets]


def _regions(mask: Mask, values: frozenset[int]) -> int:
    number = 0
    for value in values:
        count, _, stats, _ = cv2.connectedComponentsWithStats((mask == value).astype(np.uint8), connectivity=8)
        number += sum(stats[i, cv2.CC_STAT_AREA] >= 16 for i in range(1, count))
    return number


def interpreted(table: AnnotationTable) -> str:
    (kind,) = (kind for kind in table.notes.counts if kind.startswith("mask values interpreted as "))
    return kind.rpartition(" ")[2]


def pair(change: object = None, *arguments: object, values: Sequence[int] = (255, 255, 255)) -> list[Mask]:
    masks = [discs(values), discs(values, shift=4)]
    return [change(mask, *arguments) for mask in masks] if callable(change) else masks


GREY = {
    "blurred": pair(blurred),
    "blurred much": pair(blurred, 3.0),
    "enlarged": pair(resized, 1.7),
    "reduced": pair(resized, 0.6),
    "anti-aliased": pair(antialiased),
    "pixels repeated": [np.kron(antialiased(mask), np.ones((3, 3), np.uint8)) for mask in pair()],
    **{f"JPEG {quality}": pair(jpeg, quality) for quality in (98, 90, 75, 50, 30, 15)},
    "white is 200": pair(blurred, values=(200, 200, 200)),
    "stray pixels": [np.where(np.arange(128) + np.arange(96)[:, None] < 2, 1, mask) for mask in pair()],
}


@pytest.mark.parametrize(
    ("kind", "values", "objects"),
    [
        *((kind, None, 3) for kind in GREY),
        *(
            (kind, *stated)
            for kind in ("blurred", "JPEG 30")
            for stated in (("regions", 3), ("binary", 1), ("instance", 1))
        ),
    ],
)
def test_rims_are_no_objects(kind: str, values: str | None, objects: int, tmp_path: Path) -> None:
    masks = [mask.astype(np.uint8) for mask in GREY[kind]]
    data = write_set(tmp_path, {f"{i}.png": mask for i, mask in enumerate(masks)})
    table = read(data, mask_values=values)
    assert table.instances_per_image().tolist() == [objects, objects]
    expected = [np.count_nonzero(mask) for mask in pair()]
    scale = masks[0].size / pair()[0].size
    for record, pixels in zip(table, expected, strict=True):
        assert record.areas.sum() == pytest.approx(pixels * scale, rel=0.15)
    notes = [line for line in table.notes.lines() if "grey values of a mask divided at" in line]
    assert len(notes) == 1
    assert notes[0].startswith("2 x ")
    if values is None:
        assert interpreted(table) == "regions"
        assert "6 separate regions in 2 masks" in " ".join(table.notes.lines())
    assert old_counts(masks) != [objects, objects], "control: the set of values does not tell"


@pytest.mark.parametrize("kind", ["blurred", "JPEG 75"])
def test_several_files_per_image_and_several_per_class(kind: str, tmp_path: Path) -> None:
    one, two = GREY[kind]
    table = read(write_set(tmp_path, {"a_cat_0.png": one, "a_dog_1.png": two}))
    assert table.class_map.names == ("cat", "dog")
    assert [record.labels.tolist() for record in table] == [[1, 2]]
    assert any("divided at 128" in line for line in table.notes.lines())


@pytest.mark.parametrize("layout", ["folders", "one folder"])
def test_jpeg_masks_are_read_if_there_are_no_others(layout: str, tmp_path: Path) -> None:
    masks = {f"{i}_mask.jpg": jpeg_bytes(mask) for i, mask in enumerate(pair())}
    images = "masks" if layout == "one folder" else "images"
    data = write_set(tmp_path, masks, images=images)
    assert read(data).instances_per_image().tolist() == [3, 3]


def test_jpeg_masks_of_several_values_or_colours_are_refused(tmp_path: Path) -> None:
    masks = {f"{i}.jpg": jpeg_bytes(mask) for i, mask in enumerate(pair(values=(90, 170, 255)))}
    with pytest.raises(DataError, match=r"masks/0\.jpg: a lossy format .* these 2 masks have more than two values"):
        read(write_set(tmp_path / "grey", masks))
    lossless = {f"{i}.png": mask for i, mask in enumerate(pair(values=(90, 170, 255)))}
    assert interpreted(read(write_set(tmp_path / "png", lossless))) == "class"  # the remedy
    colours = np.dstack([discs((255, 0, 0)), discs((0, 255, 0)), discs((0, 0, 255))])
    with pytest.raises(DataError, match=r"masks/0\.jpg: .* must be black and white, .* has colours"):
        read(write_set(tmp_path / "colours", {"0.jpg": jpeg_bytes(colours)}))


@pytest.mark.parametrize("folders", [("mask", "no_mask"), ("images", "masks")])
def test_jpegs_of_the_same_names_in_class_folders_are_no_masks(folders: tuple[str, str], tmp_path: Path) -> None:
    """Faces with and without a mask: only a usual name of the image folder makes JPEGs masks."""
    for folder in folders:
        write_set(tmp_path, {"0.jpg": jpeg_bytes(discs())}, folder, images=folder)
    assert read(tmp_path).has_boxes is (folders == ("images", "masks"))


SEVERAL = {"sharp": None, "blurred": blurred, "enlarged": resized, "anti-aliased": antialiased}


@pytest.mark.parametrize("change", SEVERAL)
@pytest.mark.parametrize("values", [(128, 255, 255), (80, 160, 240), (80, 160, 255)])
def test_more_than_two_clear_values_are_never_binary(change: str, values: tuple[int, ...], tmp_path: Path) -> None:
    masks = pair(SEVERAL[change], values=values)
    table = read(write_set(tmp_path, {f"{i}.png": mask for i, mask in enumerate(masks)}))
    assert interpreted(table) == "class"
    assert table.class_map.category_ids == tuple(sorted(set(values)))
    assert table.instances_per_image().tolist() == [3, 3]
    has_rims = any("rim between two values" in line for line in table.notes.lines())
    assert has_rims is (change != "sharp")
    assert old_counts(masks) != [3, 3] or 255 not in values


@pytest.mark.parametrize("change", SEVERAL)
def test_numbers_of_objects_with_rims_stay_objects(change: str, tmp_path: Path) -> None:
    values = [(40, 90, 140), (40, 90, 190), (40, 120, 170)]
    masks = [discs(numbers) if SEVERAL[change] is None else SEVERAL[change](discs(numbers)) for numbers in values]
    table = read(write_set(tmp_path, {f"{i}.png": m for i, m in enumerate(masks)}), mask_values="instance")
    assert table.instances_per_image().tolist() == [3, 3, 3]
    if change != "sharp":
        assert [len(set(np.unique(mask))) > 10 for mask in masks] == [True] * 3  # control: one object per value


def test_thin_objects_with_numbers_are_no_rims(tmp_path: Path) -> None:
    mask = np.zeros((96, 128), np.uint8)
    for number in range(1, 90):
        mask[number, 4 : 4 + number] = number  # one pixel high, the next number touches it
    mask[::2] = 0
    table = read(write_set(tmp_path, {"0.png": mask, "1.png": np.where(mask == 89, 0, mask)}))
    assert interpreted(table) == "instance"
    assert table.instances_per_image().tolist() == [45, 44]


def test_many_small_objects_that_touch_are_no_rims(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).permutation(900).reshape(30, 30) + 1
    mask = np.zeros((61, 151), np.uint16)
    mask[1:, 40:100] = np.kron(numbers, np.ones((2, 2), np.uint16))
    counts = count_values(mask)
    assert counts is not None
    assert counts.slope[200:700].sum() > 0.4 * counts.pixels[200:700].sum()  # control: most pixels look like rims
    table = read(write_set(tmp_path, {"0.png": mask}))
    assert table.instances_per_image().tolist() == [900]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_16_bit_masks_with_rims(dtype: type, tmp_path: Path) -> None:
    masks = [(mask.astype(dtype) * 257) for mask in pair(blurred)]
    table = read(write_set(tmp_path, {f"{i}.tif": mask for i, mask in enumerate(masks)}))
    assert table.instances_per_image().tolist() == [3, 3]


@pytest.mark.parametrize("change", [None, resized])
def test_255_is_ignored_where_it_has_fewer_pixels(change: object, tmp_path: Path) -> None:
    masks = [bordered((1, 2, 15), 7), bordered((2, 1, 1), 7)]
    masks = [change(mask) for mask in masks] if callable(change) else masks
    table = read(write_set(tmp_path, {f"{i}.png": mask for i, mask in enumerate(masks)}))
    assert table.class_map.category_ids == (1, 2, 15)
    assert table.instances_per_image().tolist() == [3, 3]
    assert "so 255 is ignored" in " ".join(table.notes.lines())


def test_255_with_more_pixels_is_no_border(tmp_path: Path) -> None:
    masks = pair(values=(255, 255, 1))
    table = read(write_set(tmp_path, {f"{i}.png": mask for i, mask in enumerate(masks)}))
    assert table.class_map.category_ids == (1, 255)
    assert table.instances_per_image().tolist() == [3, 3]
    assert "255 is not ignored" in " ".join(table.notes.lines())
    assert read(tmp_path, mask_values="class").instances_per_image().tolist() == [1, 1]  # stated: 255 is ignored
    assert old_counts(masks) == [1, 1], "control: the objects with 255 were dropped"


def test_masks_of_1_and_masks_of_255(tmp_path: Path) -> None:
    masks = [discs((1, 1, 1)), discs()]
    table = read(write_set(tmp_path, {f"{i}.png": mask for i, mask in enumerate(masks)}))
    assert interpreted(table) == "regions"
    assert table.instances_per_image().tolist() == [3, 3]
    assert old_counts(masks) == [3, 0], "control: 255 was dropped"


@pytest.mark.parametrize("value", [1, 128, 255])
def test_regions_if_they_are_many_and_apart(value: int, tmp_path: Path) -> None:
    many, one = pair(values=(value,) * 3), [discs((0, value)), discs((0, value), shift=4)]
    split = [mask.copy() for mask in one]
    for mask in split:
        mask[60:61] = 0  # a gap of one pixel, and a speck
        mask[90:94, 120:124] = value
    for name, masks, values, objects in (("many", many, "regions", 3), ("one", split, "binary", 1)):
        data = write_set(tmp_path / name, {f"{i}.png": mask for i, mask in enumerate(masks)})
        table = read(data)
        assert (interpreted(table), table.instances_per_image().tolist()) == (values, [objects] * 2)
        (line,) = (line for line in table.notes.lines() if "interpreted" in line)
        for other in line.rpartition("--mask-values ")[2].split(" or "):  # what the message offers is accepted
            if (other, value) != ("class", 255):
                read(data, mask_values=other)
    assert read(tmp_path / "many", mask_values="binary").instances_per_image().tolist() == [1, 1]
    assert read(tmp_path / "one", mask_values="regions").instances_per_image().tolist() == [3, 3]


def test_the_class_of_regions(tmp_path: Path) -> None:
    data = write_set(tmp_path, {"0.png": discs(), "1.png": discs(shift=4)})
    assert read(data).class_map.names == ("object",)
    assert read(data, classes=["nucleus"]).class_map.names == ("nucleus",)
    with pytest.raises(DataError, match=r"write 1 instead, .*--mask-values binary .* or regions"):
        read(data, mask_values="class")


def test_a_mask_outside_the_sample_that_is_not_binary_is_noted(tmp_path: Path) -> None:
    masks = {f"{i:03}.png": discs() for i in range(36)}
    masks["001.png"] = discs((80, 160, 255))
    masks["003.png"] = blurred(discs())
    table = read(write_set(tmp_path, masks))
    assert table.notes.counts["mask of several clear values read as regions"] == 1
    assert table.notes.counts["grey values of a mask divided at 128 into background and object"] == 1
    assert table.instances_per_image().tolist() == [3] * 36


def test_small_numbers_have_no_threshold() -> None:
    counts = count_values(discs((1, 2, 3)))
    assert counts is not None
    assert threshold_of(counts) is None
    assert count_values(np.array([[0, 2**16]], np.int32)) is None


CONFIGS = (TrainConfig, EvaluateConfig, InspectConfig, ConvertConfig, TransferConfig)


@pytest.mark.parametrize("kind", ["sharp", "JPEG 75"])
def test_every_command_reads_the_same(kind: str, tmp_path: Path) -> None:
    masks = pair() if kind == "sharp" else GREY[kind]
    data = write_set(tmp_path / "data", {f"{i}.png": mask for i, mask in enumerate(masks)})
    for config in CONFIGS:
        for values, objects in ((None, 3), ("regions", 3), ("binary", 1)):
            options = {"data": str(data), "mask_values": values}
            if config is ConvertConfig:
                options |= {"to": "coco", "output": str(tmp_path / "unused")}
            assert load_table(config(**options)).instances_per_image().tolist() == [objects] * 2  # type: ignore[arg-type]


def test_inspect_and_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_set(tmp_path / "data", {f"{i}.png": mask for i, mask in enumerate(GREY["blurred"])})
    assert main(["inspect", str(data), "--output", str(tmp_path / "inspected")]) == 0
    printed = capsys.readouterr().out
    assert "interpreted as regions" in printed
    assert "divided at 128" in printed
    for values, objects in ((), 6), (("--mask-values", "binary"), 2):
        output = tmp_path / f"coco {objects}"
        assert main(["convert", str(data), str(output), "--to", "coco", *values]) == 0
        assert read(output).instances_per_image().sum() == objects


@pytest.mark.slow
def test_training_on_regions(tmp_path: Path, train: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(train)
    data = write_set(tmp_path / "data", {f"{i}.png": mask for i, mask in enumerate([*GREY["blurred"]] * 2)})
    run = train(data, tmp_path / "run", "--val", "0.5")
    assert "12 instances" in capsys.readouterr().out
    assert main(["evaluate", str(run), str(data), "--device", "cpu"]) == 0


def labelme(mask: Mask) -> str:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    points = [[0, 0], [mask.shape[1] - 1, mask.shape[0] - 1]]
    text = base64.b64encode(file.getvalue()).decode()
    shape = {"label": "cell", "points": points, "shape_type": "mask", "mask": text, "group_id": None, "flags": {}}
    size = {"imageHeight": mask.shape[0], "imageWidth": mask.shape[1]}
    return json.dumps(
        {"version": "5.5.0", "flags": {}, "shapes": [shape], "imagePath": "a.jpg", "imageData": None} | size
    )


@pytest.mark.parametrize("kind", ["sharp", "blurred", "JPEG 75"])
def test_masks_inside_labelme_files(kind: str, tmp_path: Path) -> None:
    mask = pair()[0] if kind == "sharp" else GREY[kind][0]
    write_set(tmp_path, {"a.png": mask}, "unused", ".", {"a.json": labelme(mask)})
    (tmp_path / "unused/a.png").unlink()
    table = read(tmp_path, format="labelme")
    assert table[0].areas.sum() == pytest.approx(np.count_nonzero(pair()[0]), rel=0.1)
    assert any("divided at 128" in line for line in table.notes.lines()) is (kind != "sharp")
    assert kind == "sharp" or np.count_nonzero(mask) > 1.2 * np.count_nonzero(pair()[0]), "control: all that is not 0"


@pytest.mark.parametrize("case", ["S01_binary_0_255", "S04b_blurred_edges"])
def test_field_cases(case: str, shared_data: Path) -> None:
    folder = shared_data / "field_cases" / case
    if not folder.is_dir():
        pytest.skip(f"{folder} is not present")
    table = read(folder)
    assert (interpreted(table), table.instances_per_image().tolist()) == ("regions", [2, 2, 2])
    masks = [np.array(Image.open(path)) for path in sorted((folder / "masks").iterdir())]
    assert old_counts(masks) != [2, 2, 2]
