"""COCO files as users have them: a correct table, or one message with file, position and remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from detseg.annotations.formats.coco.read import read_coco
from detseg.annotations.formats.coco.write import write_coco
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.masks import rasterize, segmentation_to_rle

HW = (20, 30)
RING = [2.0, 3, 12, 3, 12, 9, 2, 9]


def image(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "file_name": "a.png", "width": HW[1], "height": HW[0], **changes}


TWO_IMAGES = [image(), image(id=2, file_name="b.png")]


def annotation(**changes: Any) -> dict[str, Any]:
    value = {"id": 17, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 6], "area": 60, "iscrowd": 0, **changes}
    return {key: item for key, item in value.items() if item is not ...}  # ... removes a key


def coco(*annotations: Any, images: Any = None, categories: Any = None) -> dict[str, Any]:
    return {
        "images": [image()] if images is None else images,
        "annotations": list(annotations),
        "categories": [{"id": 1, "name": "cell"}] if categories is None else categories,
    }


def write(folder: Path, data: Any, name: str = "instances.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return path


def read(folder: Path, data: Any, **options: Any) -> AnnotationTable:
    return read_coco(write(folder, data), False, **options)


# --- contents ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "images", "instances"),
    [
        (coco(images=[]), 0, 0),
        (coco(), 1, 0),  # an image without annotation is a record
        (coco(annotation()), 1, 1),
        ({"images": [image()], "categories": []}, 1, 0),  # images without ground truth
        (coco(annotation(area=..., iscrowd=..., id=...)), 1, 1),
        (coco(annotation(segmentation=[], keypoints=[])), 1, 1),
        (coco(annotation(id=3.0, image_id=1.0, category_id=1.0), images=[image(id=1.0, width=30.0)]), 1, 1),
        (coco(annotation(iscrowd=True, ignore=0.0, area=None)), 1, 1),
        (coco(*[annotation(id=i, bbox=[i % 25, i % 15, 2, 2]) for i in range(400)]), 1, 400),
    ],
)
def test_number_of_images_and_instances(tmp_path: Path, data: Any, images: int, instances: int) -> None:
    table = read(tmp_path, data)
    assert (len(table), len(table.label)) == (images, instances)
    assert not table.notes


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (..., "there is no other"),
        ([2, 3, 0, 6], "the stated box has no width"),
        ([12, 9, -10, -6], "the stated box has exchanged corners or a negative size"),
        ([40, 3, 5, 6], "the stated box is outside the image"),
    ],
)
def test_a_box_that_cannot_be_used_is_that_of_the_outline(tmp_path: Path, box: Any, reason: str) -> None:
    table = read(tmp_path, coco(annotation(bbox=box, segmentation=[RING], area=0)))
    assert table.boxes_xywh.tolist() == [[2, 3, 10, 6]]
    assert table.area.tolist() == [60]
    assert table.notes.counts == {f"box of the outline used: {reason}": 1}


def test_a_box_around_the_keypoints(tmp_path: Path) -> None:
    data = coco(annotation(bbox=..., keypoints=[0, 0, 0, 2, 3, 1, 12, 13, 2]))
    table = read(tmp_path, data)
    assert table.boxes_xywh.tolist() == [[2, 3, 10, 10]]  # point 1 is not labelled
    assert "box around the keypoints used: there is no other" in table.notes.counts


def test_rotated_boxes_of_cvat(tmp_path: Path) -> None:
    turned = annotation(bbox=[8, 4, 4, 8], attributes={"occluded": False, "rotation": 90.0})
    upright = annotation(id=18, bbox=[8, 4, 4, 8], attributes={"rotation": 0.0})
    others = [
        annotation(id=19 + i, attributes=value) for i, value in enumerate([{}, [], None, "rotation", {"rotation": "x"}])
    ]
    table = read(tmp_path, coco(turned, upright, *others))
    np.testing.assert_allclose(table.boxes_xywh[:2], [[6, 6, 8, 4], [8, 4, 4, 8]], atol=1e-9)
    assert table.notes.counts == {"rotated box replaced by its axis-aligned bounding box": 1}


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    assert len(read(tmp_path, b"\xef\xbb\xbf" + json.dumps(coco(annotation())).encode())) == 1


def test_defaults(tmp_path: Path) -> None:
    table = read(tmp_path, coco(annotation(area=..., iscrowd=...), annotation(id=18, ignore=1, segmentation=[RING])))
    assert table.area.tolist() == [60, 60]
    assert table.iscrowd.tolist() == [False, False]
    assert table.ignore.tolist() == [False, True]
    assert table.annotation_id.tolist() == [17, 18]
    assert table.segmentation.present().tolist() == [False, True]


@pytest.mark.parametrize("ids", [[1, 2, 3], [0, 1, 2], [7, 90, 13]])
def test_category_ids_with_gaps_or_from_zero(tmp_path: Path, ids: list[int]) -> None:
    categories = [{"id": number, "name": f"c{number}"} for number in ids]
    table = read(tmp_path, coco(*[annotation(category_id=number, id=number) for number in ids], categories=categories))
    assert table.class_map.category_ids == tuple(sorted(ids))
    assert [table.class_map.category_id_of(int(label)) for label in table.label] == ids
    assert [table.class_map.name_of(int(label)) for label in table.label] == [f"c{number}" for number in ids]


def test_classes_are_selected_in_the_given_order(tmp_path: Path) -> None:
    categories = [{"id": i, "name": name} for i, name in enumerate(["a", "b", "c"])]
    data = coco(*[annotation(category_id=i, id=i) for i in range(3)], categories=categories)
    table = read(tmp_path, data, classes=["c", "a"])
    assert table.class_map.names == ("c", "a")
    assert table.class_map.category_ids == (2, 0)
    assert table.label.tolist() == [2, 1]
    assert table.notes.counts == {"instance of an unselected class left out": 1}
    assert len(read(tmp_path, data, classes=[]).label) == 0
    with pytest.raises(DataError, match="no class 'd', 'e'; available classes: a, b, c"):
        read(tmp_path, data, classes=["a", "d", "e"])


@pytest.mark.parametrize(
    ("segmentation", "expected", "notes"),
    [
        ([], None, []),
        ([RING], 1, []),
        ([RING, [1, 1, 2, 2]], 1, ["polygon ring with fewer than three points left out"]),
        ([RING, []], 1, ["polygon ring with fewer than three points left out"]),
        (
            [[1, 1, 2, 2]],
            None,
            ["polygon ring with fewer than three points left out", "instance left without a mask"],
        ),
        ({"size": [20, 30], "counts": [100, 50, 450]}, "rle", []),
    ],
)
def test_segmentations(tmp_path: Path, segmentation: Any, expected: Any, notes: list[str]) -> None:
    table = read(tmp_path, coco(annotation(segmentation=segmentation)))
    assert table.boxes_xywh.tolist() == [[2, 3, 10, 6]]
    value = table.segmentation[0]
    if expected == "rle":
        assert isinstance(value, dict)
    else:
        assert value is None if expected is None else len(value or []) == expected
    assert list(table.notes.counts) == notes


def test_repairs_are_noted_with_annotation_and_image(tmp_path: Path) -> None:
    boxes = [[2, 3, 0, 6], [28, 3, 10, 6], [50, 3, 1, 1], [2, 3, 4, 5]]
    table = read(tmp_path, coco(*[annotation(id=i, bbox=box) for i, box in enumerate(boxes)]))
    assert table.boxes_xywh.tolist() == [[28, 3, 2, 6], [2, 3, 4, 5]]
    assert sum(table.notes.counts.values()) == 3
    assert all("instances.json, annotation" in line and "(a.png)" in line for line in table.notes.lines())
    with pytest.raises(DataError, match=r"instances.json, annotation 0 \(a.png\): box \[2, 3, 0, 6\] has no width"):
        read(tmp_path, coco(annotation(id=0, bbox=boxes[0])), bad_instances="error")


def test_repeated_annotation_ids_are_noted(tmp_path: Path) -> None:
    table = read(tmp_path, coco(annotation(), annotation(), annotation()))
    assert len(table.label) == 3
    assert table.notes.counts == {"duplicate annotation id (annotation ids are not used)": 2}


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 0, 5, 1, 4, 2]])
@pytest.mark.parametrize("chunk", [1, 2, 1024])
def test_annotations_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: list[int], chunk: int
) -> None:
    monkeypatch.setattr("detseg.annotations.formats.coco.outlines.CHUNK", chunk)
    kinds: list[Any] = [
        {"segmentation": [RING], "area": ...},  # area to be computed
        {"segmentation": {"size": [20, 30], "counts": [100, 50, 450]}, "iscrowd": 1},
        {"bbox": [28, 3, 10, 6]},  # clipped
        {"segmentation": [[value + 0.125 for value in RING], RING]},  # more decimals than two
        {"bbox": [2, 3, 0, 6]},  # dropped
        {"segmentation": []},
    ]
    annotations = [annotation(id=10 + i, image_id=1 + i % 2, **kind) for i, kind in enumerate(kinds)]
    table = read(tmp_path, coco(*[annotations[i] for i in order], images=TWO_IMAGES))
    assert [record.image_id for record in table] == [1, 2]
    ids = [table.annotation_id[first:last].tolist() for first, last in zip(table.start, table.stop, strict=True)]
    remaining = [i for i in order if i != 4]
    assert ids == [[10 + i for i in remaining if i % 2 == 0], [10 + i for i in remaining if i % 2 == 1]]
    by_id = dict(zip(table.annotation_id.tolist(), range(5), strict=True))
    assert table.boxes_xywh[by_id[12]].tolist() == [28, 3, 2, 6]
    assert table.area[by_id[10]] == 60
    rings = table.segmentation[by_id[13]]
    assert isinstance(rings, list)
    assert [ring.ravel().tolist() for ring in rings] == [[value + 0.125 for value in RING], RING]
    outlined = [isinstance(table.segmentation[by_id[10 + i]], kind) for i, kind in ((0, list), (1, dict), (3, list))]
    assert all(outlined)
    assert table.notes.counts == {"box clipped to the image": 1, "box dropped: it has no width": 1}


# --- rejected files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated"),
        (b"{}", "1 x images: missing, expected a list of objects, got nothing"),
        (b"[]", "a list, .*--predictions"),
        (b'{"images": [}', r"malformed.* line 1, at '}'"),
        (b'{"images": [],\n "categories": [NaN]}', "malformed.* line 2, at 'NaN"),
        (b'{"images": [\xff]}', "instances.json"),
        (json.dumps(coco(annotation(id="3")))[:-1].encode(), "instances.json: .*truncated.*export the file again"),
        (
            coco(annotation(), annotation(id=4, bbox=[1, 2, 3])),
            r"1 x annotations.bbox: expected 4 numbers, got \[1, 2, 3\] \(annotation 4 \(a.png\)\)",
        ),
        (coco(annotation(bbox=[1, 2, 3, "x"])), r'bbox: expected 4 numbers, got \[1, 2, 3, "x"\] \(annotation 17'),
        (coco(annotation(bbox=[1, 2, None, 4])), r"bbox: expected 4 numbers, got \[1, 2, null, 4\]"),
        (
            coco(annotation(segmentation=[[1, 2, "x"]])),
            r'segmentation: expected a list of lists of numbers or an object, got \[\[1, 2, "x"\]\]',
        ),
        (coco(annotation(segmentation={"size": [20, 30]})), "1 x annotations.segmentation.counts: missing"),
        (
            coco(annotation(category_id=...)),
            r"1 x annotations.category_id: missing, expected a number, got nothing \(annotation 17",
        ),
        (
            coco(images=[image(file_name=...)]) | {"images": [{"id": 5}]},
            r"images.file_name: missing, expected text, got nothing \(image 5\)",
        ),
        (coco(images=[image(id=1.5)]), "image id 1.5 is not a whole number"),
        (coco(images=[image(id=2**70)]), "64 bits"),
        (coco(images=[image(height=0)]), "no width and height"),
        (coco(images=[image(height=None)]), "no width and height"),
        (coco(images=[image(), image(file_name="b.png")]), "image id 1 is used by a.png and by b.png"),
        (coco(annotation(image_id=9)), "annotation 17: image_id 9 is not among the images"),
        (coco(annotation(category_id=9)), r"annotation 17 \(a.png\): category_id 9 is not among the categories \(1\)"),
        (coco(annotation(), categories=[]), r"category_id 1 is not among the categories \(none\)"),
        (coco(categories=[{"id": 1, "name": "x"}, {"id": 2, "name": "x"}]), "2 categories have the name 'x'.*1 'x', 2"),
        (coco(categories=[{"id": 1, "name": "x"}, {"id": 1, "name": "y"}]), "2 categories have the id 1"),
        (coco(annotation(bbox=...)), "none of the 1 annotations has a box or an outline"),
        (coco(annotation(area=-3)), "area -3 is negative"),
        (coco(annotation(bbox=[1e308, 0, 1e308, 1])), "finite"),
        (coco(annotation(segmentation={"size": [30, 20], "counts": [600]})), r"annotation 17 .*size \[30, 20\]"),
        (coco(annotation(segmentation={"size": [20, 30], "counts": [60]})), "add up to 60"),
        (coco(annotation(segmentation={"size": [20, 30], "counts": "junk"})), "RLE"),
        (coco(annotation(segmentation=[[*RING, 1]])), "9 numbers"),
        (coco(annotation(segmentation=[[*RING, 1, 1e8]])), r"coordinate 1e\+08"),
        (coco(*[annotation(id=i, bbox=[12 + i, 9, 16 + i, 14]) for i in range(12)]), "corners x1, y1, x2, y2"),
        (coco(annotation(bbox=[0.1, 0.2, 0.3, 0.4])), "normalised"),
    ],
)
def test_one_clear_message(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, data)
    assert "instances.json" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_allow(tmp_path: Path, word: str) -> None:
    text = json.dumps(coco(annotation(bbox=[1, 2, 3, 12345]))).replace("12345", word)
    json.loads(text)  # control: Python's JSON parser accepts it
    with pytest.raises(DataError, match=r"instances\.json"):
        read(tmp_path, text.encode())


def test_missing_files_are_os_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_coco(tmp_path / "none.json")
    with pytest.raises(FileNotFoundError, match="no such image folder"):
        read_coco(write(tmp_path, coco()), tmp_path / "nowhere")


# --- image files (where they are searched: test_image_files.py) -----------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_broken_images_are_listed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"instances.json: 1 of 1 images cannot be read: a.png"):
        read_coco(write(tmp_path, coco()))


def test_image_size_differs_from_annotation(tmp_path: Path) -> None:
    Image.new("RGB", (30, 21)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png \(annotated 30 x 20, file 30 x 21\); .*--images"):
        read_coco(write(tmp_path, coco()))


def test_sizes_that_are_not_annotated_are_read(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    table = read_coco(write(tmp_path, coco(annotation(), images=[{"id": 1, "file_name": "a.png"}])))
    assert table[0].stored_hw == HW


# --- keypoints -----------------------------------------------------------------------------------------------------


def test_keypoints_of_two_categories_must_agree(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "a", "keypoints": ["p"]}, {"id": 2, "name": "b", "keypoints": ["q"]}]
    data = coco(annotation(keypoints=[1, 2, 2]), categories=categories)
    with pytest.raises(DataError, match="'a' and 'b' have different keypoints"):
        read(tmp_path, data)
    table = read(tmp_path, data, classes=["a"])
    assert table.keypoint_schema is not None
    assert table.keypoint_schema.names == ("p",)


def test_keypoints_without_names_and_with_missing_numbers(tmp_path: Path) -> None:
    table = read(tmp_path, coco(annotation(keypoints=[1, 2, 2, 0, 0, 0]), annotation(id=18)))
    assert table.keypoint_schema is not None
    assert table.keypoint_schema.names == ("point 1", "point 2")
    assert table.keypoints is not None
    assert table.keypoints.shape == (2, 2, 3)
    with pytest.raises(DataError, match=r"annotation 17 \(a.png\): 4 keypoint numbers, expected 3"):
        read(tmp_path, coco(annotation(keypoints=[1, 2, 2, 3])))


# --- writing -------------------------------------------------------------------------------------------------------


def equal(a: AnnotationTable, b: AnnotationTable) -> bool:
    columns = "image_id media height width orientation stored_frame start stop boxes_xywh label area iscrowd ignore"
    packed = "points ring_start rings counts counts_start rle_hw"
    keypoints = (a.keypoints is None) == (b.keypoints is None)
    return (
        a.class_map == b.class_map
        and a.keypoint_schema == b.keypoint_schema
        and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in columns.split())
        and all(np.array_equal(getattr(a.segmentation, name), getattr(b.segmentation, name)) for name in packed.split())
        and keypoints
        and (a.keypoints is None or np.array_equal(a.keypoints, b.keypoints))  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("rows", [[], [0], [1, 0]])
def test_writing_a_subset(tmp_path: Path, rows: list[int]) -> None:
    images = [image(id=5), image(id=0, file_name="b.png")]
    data = coco(
        annotation(id=0, image_id=5, category_id=3, iscrowd=1, segmentation={"size": [20, 30], "counts": [600]}),
        annotation(id=0, image_id=0, category_id=90, ignore=1),
        images=images,
        categories=[{"id": 90, "name": "z"}, {"id": 3, "name": "y"}],
    )
    table = read(tmp_path, data).subset(rows)
    write_coco(table, tmp_path / "written.json")
    written = json.loads((tmp_path / "written.json").read_text())
    assert [value["id"] for value in written["annotations"]] == list(range(1, len(rows) + 1))  # never 0
    assert [value["id"] for value in written["images"]] == [images[row]["id"] for row in rows]
    assert {value["id"]: value["name"] for value in written["categories"]} == {3: "y", 90: "z"}
    again = read_coco(tmp_path / "written.json", False)
    assert [record.boxes_xywh.tolist() for record in again] == [record.boxes_xywh.tolist() for record in table]
    assert [record.labels.tolist() for record in again] == [record.labels.tolist() for record in table]
    assert [record.ignore.tolist() for record in again] == [record.ignore.tolist() for record in table]


def test_classes_of_whole_images_are_not_lost_silently(tmp_path: Path) -> None:
    from detseg.annotations.builder import TableBuilder
    from detseg.classes import ClassMap

    builder = TableBuilder(ClassMap(("a",)), "", source="s")
    builder.add_image("a.png", HW, class_index=0)
    with pytest.raises(DataError, match="cannot store the classes of whole images"):
        write_coco(builder.build(), tmp_path / "w.json")
    assert not (tmp_path / "w.json").exists()


# --- real files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "images", "instances"), [("train", 33, 246), ("val", 13, 93)])
def test_coco_open(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str, images: int, instances: int
) -> None:
    path = shared_data / "coco_open" / f"instances_{split}.json"
    table = read_coco(path)
    assert (len(table), len(table.label), len(table.class_map)) == (images, instances, 80)
    assert not table.notes
    assert table.has_masks
    assert capsys.readouterr().err == ""  # no progress bar without a terminal
    oracle = COCO(str(path))
    for record in table:
        ground_truth = oracle.loadAnns(oracle.getAnnIds(imgIds=record.image_id))
        assert record.boxes_xywh.tolist() == [value["bbox"] for value in ground_truth]
        assert record.areas.tolist() == [value["area"] for value in ground_truth]
        assert [table.class_map.category_id_of(int(label)) for label in record.labels] == [
            value["category_id"] for value in ground_truth
        ]
        for segmentation, value in zip(record.segmentations, ground_truth, strict=True):
            assert segmentation is not None
            np.testing.assert_array_equal(
                rasterize(segmentation, record.size_hw, record.size_hw), oracle.annToMask(value)
            )
    write_coco(table, tmp_path / "written.json")
    again = read_coco(tmp_path / "written.json", table.root)
    assert equal(again, table)
    written = COCO(str(tmp_path / "written.json"))
    assert sorted(written.cats) == sorted(oracle.cats)
    if split == "train":
        assert (table.instances_per_image() == 0).sum() == 1
        assert table.iscrowd.sum() == 3


@pytest.mark.parametrize(
    ("name", "images", "instances", "notes"),
    [
        ("gt.json", 3, 5, 0),
        ("edge_gt.json", 6, 8, 0),
        ("zero_gt.json", 2, 3, 0),
        ("healthcheck_quality.json", 1, 3, 3),
        ("healthcheck_bad.json", 0, 0, "image id 1 is used by img1.jpg and by img1_dup.jpg"),
        ("dt.json", 0, 0, "a list, .*--predictions"),
    ],
)
def test_hotcoco_fixtures(shared_data: Path, name: str, images: int, instances: int, notes: int | str) -> None:
    path = shared_data / "hotcoco_fixtures" / "fixtures" / name
    if isinstance(notes, str):
        with pytest.raises(DataError, match=f"^{name}: .*{notes}"):
            read_coco(path, False)
        return
    table = read_coco(path, False)
    assert (len(table), len(table.label), sum(table.notes.counts.values())) == (images, instances, notes)


@pytest.mark.parametrize("layout", ["coco_instances", "coco_person_keypoints", "mmdet_coco"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_datumaro_layouts(shared_data: Path, layout: str, split: str) -> None:
    folder = shared_data / "datumaro_assets" / "assets" / "coco_dataset" / layout / "annotations"
    (path,) = folder.glob(f"*_{split}.json")
    table = read_coco(path)
    assert len(table) == 1
    assert table[0].path.is_file()
    if split == "val":  # a polygon and a crowd with uncompressed counts
        assert table.iscrowd.tolist() == [False, True]
        crowd = table.segmentation[1]
        assert crowd is not None
        assert coco_mask.area(segmentation_to_rle(crowd, table[0].size_hw)) == table.area[1] == 20
