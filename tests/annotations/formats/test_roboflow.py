"""Roboflow's exports, and COCO files of other tools: a correct table, or one clear message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detseg.annotations.formats.coco.read import read_coco
from detseg.annotations.read import read
from detseg.errors import DataError

GROUP = {"id": 0, "name": "cells", "supercategory": "none"}
RBC = {"id": 1, "name": "RBC", "supercategory": "cells"}
WBC = {"id": 2, "name": "WBC", "supercategory": "cells"}
NOTE = "unused category 0, the supercategory of all others, left out"


def write(folder: Path, categories: list[dict[str, Any]], used: list[int]) -> Path:
    images = [{"id": 0, "file_name": "a_jpg.rf.0f3.jpg", "width": 30, "height": 20}]
    annotations = [
        {"id": number, "image_id": 0, "category_id": category, "bbox": [1, 1, 5, 5], "area": 25, "segmentation": []}
        for number, category in enumerate(used)
    ]
    path = folder / "train/_annotations.coco.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.mark.parametrize(
    ("categories", "used", "names", "labels"),
    [
        ([], [], (), []),
        ([GROUP, RBC, WBC], [], ("RBC", "WBC"), []),
        ([GROUP, RBC, WBC], [1, 2], ("RBC", "WBC"), [1, 2]),
        ([WBC, RBC, GROUP], [2], ("RBC", "WBC"), [2]),
        ([GROUP, RBC, WBC], [0, 1], ("cells", "RBC", "WBC"), [1, 2]),  # it is used, so it is not removed
        ([{"id": 0, "name": "car"}, {"id": 1, "name": "car", "supercategory": "car"}], [1], ("car",), [1]),
        ([GROUP, RBC, {**WBC, "supercategory": "none"}], [1], ("cells", "RBC", "WBC"), [2]),  # not of all
        ([GROUP, RBC, {"id": 2, "name": "WBC"}], [1], ("cells", "RBC", "WBC"), [2]),
        ([GROUP], [], ("cells",), []),  # a class like any other
        ([{**GROUP, "id": 3}, RBC, WBC], [1], ("RBC", "WBC", "cells"), [1]),  # only id 0 is Roboflow's
        ([{"id": 0, "name": "a", "supercategory": None}, {"id": 1, "name": "b", "supercategory": 7}], [0, 1],
         ("a", "b"), [1, 2]),
    ],
)  # fmt: skip
def test_category_zero(
    tmp_path: Path, categories: list[dict[str, Any]], used: list[int], names: tuple[str, ...], labels: list[int]
) -> None:
    table = read_coco(write(tmp_path, categories, used), False)
    assert table.class_map.names == names
    assert table.label.tolist() == labels
    assert table.notes.counts == ({NOTE: 1} if len(names) < len(categories) else {})


def test_a_used_group_with_the_name_of_a_class_is_rejected(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "car"}, {"id": 1, "name": "car", "supercategory": "car"}]
    with pytest.raises(DataError, match="2 categories have the name 'car'"):
        read_coco(write(tmp_path, categories, [0, 1]), False)


# --- real data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "names", "boxes"),
    [
        ("roboflow_dataset/coco/train/_annotations.coco.json", ("label_0", "label_1"), [[2, 1, 3, 1], [0, 0, 2, 4]]),
        ("roboflow_dataset/coco/val/_annotations.coco.json", ("label_0", "label_1"), [[0, 0, 1, 2], [0, 0, 9, 1]]),
        ("coco_dataset/coco_roboflow/train/_annotations.coco.json", ("a", "b", "c"), [[2, 2, 3, 1]]),
        ("coco_dataset/coco_roboflow/val/_annotations.coco.json", ("a", "b", "c"), [[0, 0, 1, 2], [0, 0, 1, 9]]),
        ("coco_dataset/mmdet_coco/annotations/instances_train.json", ("a", "b", "c"), [[2, 2, 3, 1]]),
        ("coco_dataset/mmdet_coco/annotations/instances_val.json", ("a", "b", "c"), [[0, 0, 1, 2], [0, 0, 1, 9]]),
        ("coco_dataset/coco/annotations/instances_train.json", ("a", "b", "c"), [[2, 2, 3, 1]]),
        ("coco_dataset/coco_instances/annotations/instances_val.json", ("a", "b", "c"), [[0, 0, 1, 2], [0, 0, 1, 9]]),
        ("coco_dataset/coco_person_keypoints/annotations/person_keypoints_train.json", ("a", "b"), [[2, 2, 3, 1]]),
        ("coco_dataset/coco_stuff/annotations/stuff_train.json", ("a", "b"), [[2, 0, 4, 4]]),
        ("coco_dataset/coco_image_info/annotations/image_info_train.json", (), []),
    ],
)
def test_samples(shared_data: Path, file: str, names: tuple[str, ...], boxes: list[list[float]]) -> None:
    path = shared_data / "datumaro_assets/assets" / file
    table = read_coco(path)
    assert table.class_map.names == names
    assert table.boxes_xywh.tolist() == boxes
    ground_truth = json.loads(path.read_text())
    assert table.iscrowd.tolist() == [bool(annotation["iscrowd"]) for annotation in ground_truth["annotations"]]
    assert all((table.root / str(name)).is_file() for name in table.media)


def test_every_sample_is_read_or_rejected(shared_data: Path) -> None:
    rejected = {
        "captions": "captions have no categories: pass the instances file",
        "labels": "annotations has a box or an outline; .*put the images into a folder for each class",
        "panoptic": "panoptic annotations .* pass the instances file",
    }
    files = sorted((shared_data / "datumaro_assets/assets/coco_dataset").rglob("*.json"))
    assert files
    for path in files:
        kind = path.name.split("_")[0]
        if kind in rejected:
            with pytest.raises(DataError, match=rejected[kind]):
                read_coco(path)
        else:
            assert len(read_coco(path)) == 1


@pytest.mark.parametrize("name", ["roboflow_dataset/coco", "coco_dataset/coco_roboflow", "coco_dataset/mmdet_coco"])
def test_folders_are_read_as_a_whole(shared_data: Path, name: str) -> None:
    table = read(shared_data / "datumaro_assets/assets" / name)
    assert set(table.split.tolist()) == {"train", "val"}
