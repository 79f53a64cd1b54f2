"""Doctor: every image that cannot be used is reported, and contents are counted."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg.annotations import AnnotationTable, read
from detseg.annotations.builder import TableBuilder
from detseg.classes import ClassMap, LabelField, joined
from detseg.doctor import image_values, inspect_images, inspect_table, summary
from detseg.doctor.findings import kind_lines
from detseg.errors import DataError

BOX = [1.0, 2.0, 30.0, 20.0]


def noise_image(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def make_table(root: Path, names: list[str], size_hw: tuple[int, int] = (40, 60)) -> AnnotationTable:
    builder = TableBuilder(ClassMap.from_names(["a", "b"]), root, source="test data")
    for name in names:
        builder.add_image(name, size_hw)
        builder.add_instance(BOX, 1)
    return builder.build()


def write_images(root: Path, names: list[str]) -> None:
    for name in names:
        suffix = Path(name).suffix
        (root / name).write_bytes(cv2.imencode(suffix, noise_image())[1].tobytes())


@pytest.mark.parametrize("names", [[], ["a.jpg"], ["a b.png", "фото.jpg", "c.bmp"]])
def test_valid_images_have_no_findings(names: list[str], tmp_path: Path) -> None:
    write_images(tmp_path, names)
    findings = inspect_images(make_table(tmp_path, names))
    assert [finding for finding in findings if finding.severity != "note"] == []  # the images show the same


def test_every_corrupt_image_is_reported_and_none_raises(tmp_path: Path) -> None:
    names = ["valid.jpg", "truncated.jpg", "truncated.png", "text.jpg", "empty.png", "missing.jpg", "small.png"]
    write_images(tmp_path, names)
    for name in ("truncated.jpg", "truncated.png"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("<html>", encoding="utf-8")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "missing.jpg").unlink()
    (tmp_path / "small.png").write_bytes(cv2.imencode(".png", noise_image(20, 30))[1].tobytes())
    findings = inspect_images(make_table(tmp_path, names))
    assert [(Path(finding.place).name, finding.kind) for finding in findings] == [
        ("truncated.jpg", "corrupt image"),
        ("truncated.png", "corrupt image"),
        ("text.jpg", "corrupt image"),
        ("empty.png", "corrupt image"),
        ("missing.jpg", "missing image"),
        ("small.png", "wrong size"),
    ]
    assert "30 x 20 pixels (width x height), its annotations specify 60 x 40" in findings[-1].message
    assert all(Path(finding.place).name in finding.line() for finding in findings)


def test_a_truncated_image_is_found_although_readers_check_only_headers(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/1.jpg", "b/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_images(tmp_path, [name])
    path = tmp_path / "b/2.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    table = read(tmp_path)
    assert len(table) == 3
    finding, *others = inspect_images(table)
    assert [other.kind for other in others] == ["repeated image", "same image in two splits"]
    assert "b/2.jpg" in finding.line()
    assert "truncated" in finding.line()


def test_malformed_files_never_raise(shared_data: Path) -> None:
    folder = shared_data / "pillow_images"
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    findings = inspect_images(make_table(folder, names))
    of_files = [finding for finding in findings if finding.kind in ("corrupt image", "wrong size")]
    assert 20 < len(of_files) <= len(names)
    others = [finding.kind for finding in findings if finding not in of_files]
    assert set(others) <= {"constant image", "nearly black image", "damaged image", "repeated image", "near-duplicates"}


def test_images_that_are_not_files_are_skipped() -> None:
    builder = TableBuilder(ClassMap.from_names(["a"]), "/nowhere", source="test data")
    builder.add_image("", (4, 5))
    builder.add_image("film.mp4", (4, 5), frame=3)
    builder.add_image("set.tar", (4, 5), member="a.jpg")
    assert inspect_images(builder.build()) == []


def test_repeated_files_and_areas() -> None:
    builder = TableBuilder(ClassMap.from_names(["a"]), "/nowhere", source="test data")
    for name in ("a.jpg", "b.jpg", "a.jpg"):
        builder.add_image(name, (40, 60))
        builder.add_instance(BOX, 1, area=650.0 if name == "b.jpg" else 600.0, annotation_id=7)
    repeated, area = inspect_table(builder.build())
    assert repeated.kind == "repeated file"
    assert "as image ids 1, 3" in repeated.message
    assert area.place == "b.jpg, annotation 7"
    assert "area 650 in a box of 600" in area.message


RING = [np.array([[1.0, 2], [31, 2], [31, 22]])]


@pytest.mark.parametrize(
    ("has_mask", "crowd", "places", "line"),
    [
        ([], [], [], None),
        ([True], [False], [], "with masks"),
        ([False, False], [False, False], [], "without masks"),
        ([True, False, True], [False, False, False], ["annotation 2"], "2 of them with masks"),
        ([True, False], [False, True], [], "with masks"),
    ],
)
def test_instances_without_a_mask_among_others(
    has_mask: list[bool], crowd: list[bool], places: list[str], line: str | None
) -> None:
    builder = TableBuilder(ClassMap.from_names(["a"]), "", source="test data")
    builder.add_image("a.jpg", (40, 60))
    for number, (masked, iscrowd) in enumerate(zip(has_mask, crowd, strict=True), start=1):
        builder.add_instance(BOX, 1, segmentation=RING if masked else None, iscrowd=iscrowd, annotation_id=number)
    table = builder.build()
    findings = [finding for finding in inspect_table(table) if finding.kind == "instance without a mask"]
    assert [finding.place for finding in findings] == [f"a.jpg, {place}" for place in places]
    assert line is None or any(line in text for text in summary(table).lines() if text.startswith("instances:"))


def test_an_image_in_two_splits_is_reported(tmp_path: Path) -> None:
    builder = TableBuilder(ClassMap.from_names(["a"]), tmp_path, source="test data")
    for name, split in (("t.jpg", "train"), ("u.jpg", "train"), ("v.jpg", "val"), ("w.jpg", "val")):
        builder.add_image(name, (40, 60), split=split)
    write_images(tmp_path, ["t.jpg", "v.jpg"])
    for name, seed in (("u.jpg", 1), ("w.jpg", 2)):
        pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        (tmp_path / name).write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    (finding,) = inspect_images(builder.build())
    assert finding.line().startswith("same image in two splits: train: t.jpg = val: v.jpg")


def test_summary_of_empty_and_single_image_tables() -> None:
    empty = summary(make_table(Path("/nowhere"), []))
    assert empty.images == empty.instances == 0
    assert empty.width is None
    assert empty.lines()
    json.dumps(empty.to_dict(), allow_nan=False)
    one = summary(make_table(Path("/nowhere"), ["a.jpg"]))
    assert (one.images, one.instances, one.negatives, one.small) == (1, 1, 0, 1)
    assert one.width is not None
    assert one.width.median == 60
    assert [(count.name, count.instances, count.images) for count in one.classes] == [("a", 1, 1), ("b", 0, 0)]


def test_summary_of_real_data(shared_data: Path) -> None:
    table = read(shared_data / "coco_open")
    result = summary(table, inspect_images(table))
    assert (result.images, result.instances, result.crowds, result.negatives) == (46, 339, 3, 3)
    assert result.splits == {"train": 33, "val": 13}
    assert result.small + result.medium + result.large == 339
    assert sum(count.instances for count in result.classes) == 339
    assert result.problems == ()
    assert {finding.kind for finding in result.findings} == {"grey image among colour images"}
    text = "\n".join(result.lines())
    assert "COCO: instances_train.json (train), instances_val.json (val)" in text
    assert "problems: none found" in text
    json.dumps(result.to_dict(), allow_nan=False)


def test_summary_of_class_folders(shared_data: Path) -> None:
    result = summary(read(shared_data / "flowers"))
    assert [count.images for count in result.classes] == [16] * 5
    assert (result.instances, result.negatives) == (0, 0)
    assert "instances" not in "\n".join(result.lines()).replace("class folders", "")
    assert any(line.startswith("note: ") for line in result.lines())


def test_many_findings_are_shortened_only_on_the_terminal(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(60)]
    table = make_table(tmp_path, names)
    result = summary(table, inspect_images(table))
    assert len(result.findings) == len(result.to_dict()["findings"]) == 61  # a class is unused
    assert result.to_dict()["kinds"] == {"missing image": 60, "class without instances": 1}
    lines = result.lines()
    assert "problems: 60 errors, 1 warning" in lines
    assert lines[-2] == (
        "error: missing image (60): 0.jpg: no such file; 1.jpg: no such file; 2.jpg: no such file; and 57 more; "
        "restore it, or remove its annotations"
    )


def test_summary_of_several_label_fields() -> None:
    fields = (LabelField("colour", ClassMap(("red", "blue"))), LabelField("shape", ClassMap(("round", "flat"))))
    builder = TableBuilder(joined(fields), "", source="test data", label_fields=fields)
    for row, index in enumerate([(0, 1), (0, -1), (-1, -1)]):
        builder.add_image(f"{row}.png", (5, 5), class_index=index)
    result = summary(builder.build())
    assert [(count.name, count.images) for count in result.classes] == [
        ("colour=red", 2),
        ("colour=blue", 0),
        ("shape=round", 0),
        ("shape=flat", 1),
    ]
    assert result.negatives == 1
    assert "label field shape: 2 classes, 1 images, 2 without a label for it" in result.lines()
    assert result.to_dict()["label_fields"][0] == {"name": "colour", "classes": 2, "labelled": 2, "unlabelled": 1}


def test_images_that_show_nothing_are_one_finding_per_kind(tmp_path: Path) -> None:
    names = ["valid.png", "white.png", "grey.png", "black.png", "dark.png", "dead_pixel.png", "dim.png"]
    images = {name: noise_image() for name in names}
    images["white.png"][:] = 255
    images["grey.png"][:] = 30, 40, 50
    images["black.png"][:] = 0
    images["dark.png"] //= 30
    images["dead_pixel.png"] //= 60
    images["dead_pixel.png"][3, 4] = 255
    images["dim.png"] //= 8
    for name, image in images.items():
        cv2.imwrite(str(tmp_path / name), image)
    findings = [each for each in inspect_images(make_table(tmp_path, names)) if each.severity != "note"]
    assert [(finding.kind, finding.file) for finding in findings] == [
        ("constant image", "white.png"),
        ("constant image", "grey.png"),
        ("constant image", "black.png"),
        ("nearly black image", "dark.png"),
        ("nearly black image", "dead_pixel.png"),
    ]
    lines = kind_lines(findings)
    assert len(lines) == 2, "one line for each kind"
    assert lines[0].startswith("warning: constant image (3): white.png: all pixels have the same value; grey.png: ")


def test_12_bits_are_scaled_by_their_range_and_a_wrong_range_is_a_finding(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "c.tif"]
    for row, name in enumerate(names):
        values = np.random.default_rng(row).integers(0, 4096, (40, 60), np.uint16)
        cv2.imwrite(str(tmp_path / name), values)
    table = make_table(tmp_path, names)
    values_of = image_values(table)
    assert values_of is not None
    assert values_of.range == (0, 4095)
    assert inspect_images(table, values_of.range) == []
    wrong = inspect_images(table, (30000, 65535))
    assert [(finding.kind, finding.file) for finding in wrong] == [("outside the value range", name) for name in names]
    report = summary(table, values=values_of)
    assert any(line.startswith("pixel values: values 0..4095 of 16-bit images") for line in report.lines())
    assert json.loads(json.dumps(report.to_dict()))["values"]["high"] == 4095
    given = image_values(table, [0, 8191])
    assert given is not None
    assert given.range == (0, 8191)
    assert given.line().startswith("values 0..8191 of 16-bit images are scaled to 8 bits (--value-range); their values")
    for name in names[:2]:
        cv2.imwrite(str(tmp_path / name), noise_image())
    cv2.imwrite(str(tmp_path / "c.tif"), noise_image())
    assert image_values(table) is None
    with pytest.raises(DataError, match="it has no effect, no image has more than 8 bits"):
        image_values(table, [0, 8191])


def test_the_range_is_that_of_the_training_split(tmp_path: Path) -> None:
    builder = TableBuilder(ClassMap.from_names(["a"]), tmp_path, source="test data")
    for name, split, high in (("a.png", "train", 4096), ("b.png", "val", 16384)):
        cv2.imwrite(str(tmp_path / name), np.random.default_rng(0).integers(0, high, (40, 60), np.uint16))
        builder.add_image(name, (40, 60), split=split)
        builder.add_instance(BOX, 1)
    found = image_values(builder.build())
    assert found is not None
    assert found.range == (0, 4095)
    assert found.source == "range of the training images"
