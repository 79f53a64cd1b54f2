"""Files of labelling tools, the same cases for every format: a correct table, or one clear error message."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detseg.annotations.formats.csv.boxes import read_csv_boxes
from detseg.annotations.formats.csv.landmarks import read_csv_landmarks
from detseg.annotations.formats.cvat.read import read_cvat
from detseg.annotations.formats.labelme.read import read_labelme
from detseg.annotations.formats.shared.shapes import ellipse_ring
from detseg.annotations.formats.via.read import read_via
from detseg.annotations.instance_box import extent_xywh
from detseg.annotations.lost_objects import LostObjects
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError

HW = (20, 30)
BOX = [2, 3, 10, 6]

Shapes = dict[str, list[tuple[str, list[Any]]]]
"""Image name -> (class, box as x, y, width, height) of each object."""


def image(path: Path, hw: tuple[int, int] = HW, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    Image.new("RGB", hw[::-1]).save(path, exif=exif)


def csv_text(shapes_by_image: Shapes, hw: Any) -> dict[str, bytes]:
    height, width = hw or ("", "")
    lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for name, objects in shapes_by_image.items():
        for label, (x, y, w, h) in objects:
            lines.append(f"{name},{width},{height},{label},{x},{y},{x + w},{y + h}")
        if not objects:
            lines.append(f"{name},{width},{height},,,,,")
    return {"boxes.csv": "\n".join(lines).encode()}


def landmark_text(shapes_by_image: Shapes, hw: Any) -> dict[str, bytes]:
    height, width = hw or ("", "")
    lines = ["filename,width,height,class,xmin,ymin,xmax,ymax,tip_x,tip_y"]
    for name, objects in shapes_by_image.items():
        for label, (x, y, w, h) in objects:
            lines.append(f"{name},{width},{height},{label},{x},{y},{x + w},{y + h},{x},{y}")
        if not objects:
            lines.append(f"{name},{width},{height},,,,,,,")
    return {"points.csv": "\n".join(lines).encode()}


def labelme_text(shapes_by_image: Shapes, hw: Any) -> dict[str, bytes]:
    files = {}
    for name, objects in shapes_by_image.items():
        shapes = [
            {"label": label, "points": [[x + w, y], [x, y + h]], "shape_type": "rectangle", "group_id": None}
            for label, (x, y, w, h) in objects
        ]
        height, width = hw or (None, None)
        value = {"shapes": shapes, "imagePath": name, "imageHeight": height, "imageWidth": width, "imageData": "AAAA"}
        stem = name.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
        files[f"{stem}.json"] = json.dumps(value).encode()
    return files


def cvat_text(shapes_by_image: Shapes, hw: Any) -> dict[str, bytes]:
    labels = sorted({label for objects in shapes_by_image.values() for label, _ in objects})
    lines = ["<annotations><version>1.1</version><meta><task><labels>"]
    lines += [f"<label><name>{label}</name></label>" for label in labels]
    lines += ["</labels></task></meta>"]
    size = f'height="{hw[0]}" width="{hw[1]}"' if hw else ""
    for number, (name, objects) in enumerate(shapes_by_image.items()):
        lines.append(f'<image id="{number}" name="{name}" {size}>')
        for label, (x, y, w, h) in objects:
            lines.append(f'<box label="{label}" xtl="{x}" ytl="{y}" xbr="{x + w}" ybr="{y + h}"/>')
        lines.append("</image>")
    return {"annotations.xml": "\n".join([*lines, "</annotations>"]).encode()}


def via_text(shapes_by_image: Shapes, hw: Any) -> dict[str, bytes]:
    value = {}
    for name, objects in shapes_by_image.items():
        regions = [
            {
                "shape_attributes": {"name": "rect", "x": x, "y": y, "width": w, "height": h},
                "region_attributes": {"class": label},
            }
            for label, (x, y, w, h) in objects
        ]
        value[f"{name}123"] = {"filename": name, "size": 123, "regions": regions, "file_attributes": {}}
    return {"via.json": json.dumps(value).encode()}


Format = tuple[Callable[[Shapes, Any], dict[str, bytes]], Callable[..., AnnotationTable]]
FORMATS: dict[str, Format] = {
    "csv_boxes": (csv_text, read_csv_boxes),
    "csv_landmarks": (landmark_text, read_csv_landmarks),
    "labelme": (labelme_text, read_labelme),
    "cvat": (cvat_text, read_cvat),
    "via": (via_text, read_via),
}
SIZED = ["csv_boxes", "csv_landmarks", "labelme", "cvat"]


@pytest.fixture(params=list(FORMATS))
def form(request: pytest.FixtureRequest) -> Format:
    return FORMATS[request.param]


def put(folder: Path, form: Format, shapes_by_image: Shapes, hw: Any = HW, images: bool = True) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in form[0](shapes_by_image, hw).items():
        (folder / name).write_bytes(content)
    for name in shapes_by_image if images else ():
        image(folder / name)


def read(folder: Path, form: Format, shapes_by_image: Shapes, hw: Any = HW, **options: Any) -> AnnotationTable:
    put(folder, form, shapes_by_image, hw)
    return form[1](folder, **options)


@pytest.mark.parametrize(
    ("shapes_by_image", "labels"),
    [
        ({"a.png": []}, []),
        ({"a.png": [("cell", BOX)]}, [1]),
        ({"a.png": [("cell", BOX), ("cell", [0, 0, 30, 20])], "b.png": []}, [1, 1]),
        ({"a.png": [("cell", BOX)], "b.png": [("axon", BOX), ("cell", [1.25, 2.5, 3.125, 4])]}, [2, 1, 2]),
        ({"a.png": [("cell", [i % 25, i % 15, 2, 2]) for i in range(400)]}, [1] * 400),
    ],
)
def test_contents(tmp_path: Path, form: Format, shapes_by_image: Shapes, labels: list[int]) -> None:
    table = read(tmp_path, form, shapes_by_image)
    assert table.media.tolist() == list(shapes_by_image)
    assert table.label.tolist() == labels
    boxes = [box for objects in shapes_by_image.values() for _, box in objects]
    assert table.boxes_xywh.tolist() == boxes
    assert not {kind for kind in table.notes.counts if "negative" not in kind}


@pytest.mark.parametrize("name", ["with space.png", "ячейка é 細胞.png", "deep/er/a.png"])
def test_names_with_special_characters(tmp_path: Path, form: Format, name: str) -> None:
    assert len(read(tmp_path, form, {name: [("cell", BOX)]}).label) == 1


@pytest.mark.parametrize("name", ["/home/else/set/a.png", "C:\\set\\a.png", "../../a.png", "set\\a.png"])
def test_paths_of_another_machine_are_matched_by_name(tmp_path: Path, form: Format, name: str) -> None:
    put(tmp_path, form, {name: [("cell", BOX)]}, images=False)
    image(tmp_path / "a.png")
    table = form[1](tmp_path)
    assert table.media.tolist() == ["a.png"]
    assert "path of another machine" in table.notes.lines()[0]


def test_nothing_outside_the_folder_is_opened(tmp_path: Path, form: Format) -> None:
    image(tmp_path / "other.png")
    for name in ("../other.png", str(tmp_path / "other.png")):
        with pytest.raises(DataError, match=r"1 of 1 images are not in .*other\.png; add"):
            read(tmp_path / "set", (lambda d, hw: form[0]({name: [("cell", BOX)]}, hw), form[1]), {})  # noqa: B023


def test_missing_images_are_counted_and_listed(tmp_path: Path, form: Format) -> None:
    put(tmp_path, form, {f"{i}.png": [("cell", BOX)] for i in range(7)}, images=False)
    image(tmp_path / "0.png")
    with pytest.raises(DataError, match=r"6 of 7 images are not in .*: 1.png, 2.png, 3.png, 4.png, 5.png, ...; add"):
        form[1](tmp_path)


def test_images_without_annotation_are_noted(tmp_path: Path, form: Format) -> None:
    image(tmp_path / "z.png")
    table = read(tmp_path, form, {"a.png": [("cell", BOX)]})
    assert len(table) == 1
    assert table.notes.lines() == ["1 x image without annotation left out: z.png"]


def test_an_image_folder_outside_the_data_folder(tmp_path: Path, form: Format) -> None:
    put(tmp_path / "set", form, {"a.png": [("cell", BOX)]}, images=False)
    image(tmp_path / "pics" / "a.png")
    assert form[1](tmp_path / "set", tmp_path / "pics").root == tmp_path / "pics"
    with pytest.raises(FileNotFoundError, match="no such image folder"):
        form[1](tmp_path / "set", tmp_path / "none")
    with pytest.raises(DataError, match="--images"):
        form[1](tmp_path / "set")
    (tmp_path / "pics").rename(tmp_path / "images")  # image folders with a usual name next to the data are searched
    assert len(form[1](tmp_path / "set").label) == 1


def test_two_images_with_the_same_name(tmp_path: Path, form: Format) -> None:
    put(tmp_path, form, {"a.png": [("cell", BOX)]}, images=False)
    image(tmp_path / "x" / "a.png")
    image(tmp_path / "y" / "a.png")
    with pytest.raises(DataError, match=r"match more than one file: a.png \(x/a.png, y/a.png\)"):
        form[1](tmp_path)
    image(tmp_path / "images" / "a.png")  # the most likely folder
    assert form[1](tmp_path).media.tolist() == ["images/a.png"]


@pytest.mark.parametrize(
    ("box", "expected", "note"),
    [
        ([0, 0, 31, 20], [0, 0, 30, 20], "clipped"),
        ([5, 5, 0, 4], None, "no width"),
        ([5, 5, 4, 0], None, "no height"),
        ([40, 5, 4, 4], None, "outside"),
    ],
)
def test_bad_boxes_follow_the_policy(tmp_path: Path, form: Format, box: Any, expected: Any, note: str) -> None:
    shapes_by_image = {"a.png": [("cell", box), ("cell", BOX)]}
    table = read(tmp_path, form, shapes_by_image)
    if form is FORMATS["csv_landmarks"] and 0 in box[2:]:
        expected = [1, 1, 8, 8]  # around the landmarks
    assert table.boxes_xywh.tolist() == [row for row in (expected, BOX) if row]
    assert any(note in line and "a.png" in line for line in table.notes.lines())
    if expected is None:
        assert table.lost == LostObjects(1, 2, 1)
        with pytest.raises(DataError, match=r"a\.png.*--bad-instances drop"):
            form[1](tmp_path, bad_instances="error")


def test_normalized_boxes_are_rejected(tmp_path: Path, form: Format) -> None:
    with pytest.raises(DataError, match=r"look normalised to 0\.\.1; multiply them by the width and height"):
        read(tmp_path, form, {"a.png": [("cell", [0.1, 0.2, 0.5, 0.25]), ("cell", [0, 0, 1, 1])]})


def test_classes_are_selected_in_the_given_order(tmp_path: Path, form: Format) -> None:
    shapes_by_image = {"a.png": [("b", BOX), ("a", BOX), ("c", BOX)]}
    table = read(tmp_path, form, shapes_by_image, classes=["c", "b"])
    assert table.class_map.names == ("c", "b")
    assert table.class_map.category_ids == (3, 2)
    assert table.label.tolist() == [2, 1]
    assert table.notes.counts == {"instance of an unselected class left out": 1}
    with pytest.raises(DataError, match="no class 'd'; available classes: a, b, c"):
        form[1](tmp_path, classes=["d"])


def test_an_instance_without_a_class(tmp_path: Path, form: Format) -> None:
    shapes_by_image = {"a.png": [("", BOX), ("cell", BOX)]}
    table = read(tmp_path, form, shapes_by_image)
    assert table.label.tolist() == [1]
    assert table.notes.counts == {"instance without a class dropped": 1}
    with pytest.raises(DataError, match="no class; add the class"):
        form[1](tmp_path, bad_instances="error")


@pytest.mark.parametrize("name", SIZED)
def test_a_stated_size_that_differs_from_the_image(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"a.png \(annotated 60 x 40, file 30 x 20\); pass the images"):
        read(tmp_path, FORMATS[name], {"a.png": [("cell", BOX)]}, hw=(40, 60))


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize(
    ("orientation", "stated", "stored_frame", "noted"),
    [
        (1, (20, 30), False, False),
        (6, (20, 30), True, False),  # only the stored pixels match
        (6, (30, 20), False, False),
        (6, None, False, True),
        (3, (20, 30), False, True),  # both match: tools show images upright
    ],
)
def test_images_rotated_by_exif(
    tmp_path: Path, name: str, orientation: int, stated: Any, stored_frame: bool, noted: bool
) -> None:
    put(tmp_path, FORMATS[name], {"a.jpg": [("cell", BOX)]}, hw=stated)
    image(tmp_path / "a.jpg", orientation=orientation)
    table = FORMATS[name][1](tmp_path)
    assert table.stored_frame.tolist() == [stored_frame]
    # orientation 6 is a rotation by 90 degrees clockwise: stored (x, y) is upright (20 - y, x)
    assert table.boxes_xywh.tolist() == [[20 - 3 - 6, 2, 6, 10] if stored_frame else BOX]
    assert any("EXIF" in line for line in table.notes.lines()) is noted


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (lambda text: b"", "empty"),
        (lambda text: b" \n", "empty"),
        (lambda text: text[:-2], None),
        (lambda text: text.replace(b"cell", b"z\xe4hler"), "UTF-8|not well-formed|invalid|JSON"),
        (lambda text: text.replace(b"12", b"1e999"), "finite|range|1e999"),
        (lambda text: text.replace(b"12", b"twelve"), None),
        (lambda text: b"\x00" + text, None),
        (lambda text: b"[" * 100_000, None),
    ],
)
def test_corrupt_files_are_rejected_by_name(tmp_path: Path, form: Format, corrupt: Any, message: str | None) -> None:
    put(tmp_path, form, {"a.png": [("cell", BOX)] * 3})
    (path,) = [path for path in tmp_path.iterdir() if path.suffix != ".png"]
    text = path.read_bytes()
    if form[1] in (read_via, read_labelme) and b"12" not in text.replace(b"123", b""):
        text = text.replace(b"10", b"12")
    path.write_bytes(corrupt(text))
    with pytest.raises(DataError, match=message) as error:
        form[1](path)
    assert path.name in str(error.value)


@pytest.mark.parametrize("name", ["csv_boxes", "csv_landmarks", "labelme", "via"])
def test_a_byte_order_mark_is_accepted(tmp_path: Path, name: str) -> None:
    put(tmp_path, FORMATS[name], {"a.png": [("cell", BOX)]})
    (path,) = [path for path in tmp_path.iterdir() if path.suffix != ".png"]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(FORMATS[name][1](tmp_path).label) == 1


def test_a_folder_without_such_files(tmp_path: Path, form: Format) -> None:
    with pytest.raises(DataError, match=r"no .* file"):
        form[1](tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        form[1](tmp_path / "none")


@pytest.mark.parametrize("name", ["csv_boxes", "csv_landmarks", "cvat", "via", "labelme"])
def test_split_folders_set_the_split(tmp_path: Path, name: str) -> None:
    for split in ("train", "valid"):
        put(tmp_path / split, FORMATS[name], {f"{split}.png": [("cell", BOX)]})
    assert FORMATS[name][1](tmp_path).split.tolist() == ["train", "val"]
    assert FORMATS[name][1](tmp_path, split="test").split.tolist() == ["test", "test"]


@pytest.mark.parametrize("name", ["csv_boxes", "cvat", "via"])
def test_a_file_without_a_split_next_to_others(tmp_path: Path, name: str) -> None:
    put(tmp_path, FORMATS[name], {"a.png": [("cell", BOX)]})
    put(tmp_path / "val", FORMATS[name], {"b.png": [("cell", BOX)]})
    with pytest.raises(DataError, match="does not state its split"):
        FORMATS[name][1](tmp_path)


def test_an_ellipse_is_rotated_clockwise() -> None:
    ring = ellipse_ring(10, 20, 5, 1, 90)
    np.testing.assert_allclose(extent_xywh(ring), [9, 15, 2, 10], atol=1e-12)
    np.testing.assert_allclose(ellipse_ring(0, 0, 2, 0, 30)[0], [2 * np.cos(np.pi / 6), 1])  # y points down
