"""All formats represent the same ground truth: equal boxes, labels and scores after conversion to any format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detseg.annotations import AnnotationTable, find_format, read, read_coco, write_coco
from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.coco.write import write_coco_folder
from detseg.classes import ClassMap
from detseg.cli import main
from detseg.metrics import evaluate_files

BOX_FORMATS = ("coco", "voc", "yolo", "csv", "labelme", "cvat", "via", "createml")
MASK_FORMATS = ("coco", "yolo", "labelme", "cvat", "via")
STATS = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR1",
    "AR10",
    "AR100",
    "AR_small",
    "AR_medium",
    "AR_large",
)
ROUNDING = 1e-9
"""Pixels. A format that scales coordinates may change them by rounding, never by more."""


def blank_images(folder: Path, sizes_hw: dict[str, tuple[int, int]]) -> Path:
    for name, (height, width) in sizes_hw.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", np.zeros((height, width), np.uint8))[1].tobytes())
    return folder


def make_table(folder: Path) -> AnnotationTable:
    """Four images in two splits: polygons, random floats, a negative image, names with spaces and non-ASCII letters."""
    names = {"train/a b.png": (40, 60), "train/ü 名.png": (50, 30), "val/c.png": (33, 47), "val/none.png": (20, 20)}
    blank_images(folder, names)
    builder = TableBuilder(ClassMap.from_names(["ant", "wood bee", "cat"]), folder, source="test data")
    random = np.random.default_rng(0)
    for name, (height, width) in names.items():
        builder.add_image(name, (height, width), split=name.split("/")[0])
        for number in range(0 if "none" in name else 5):
            x, y = random.uniform(0, width / 2), random.uniform(0, height / 2)
            w, h = random.uniform(3, width / 2), random.uniform(3, height / 2)
            ring = np.array([[x, y], [x + w, y + h / 3], [x + w / 2, y + h]])
            builder.add_instance(None, 1 + number % 3, segmentation=[ring])
    return builder.build()


def ground_truth_of(table: AnnotationTable) -> dict[str, list[tuple[str, list[float]]]]:
    """File name -> sorted (class, box) of its instances."""
    return {
        record.path.name: sorted(
            (table.class_map.name_of(label), box)
            for label, box in zip(record.labels.tolist(), record.boxes_xywh.tolist(), strict=True)
        )
        for record in table
    }


def convert(data: Path, output: Path, to: str, *options: str) -> Path:
    assert main(["convert", str(data), str(output), "--to", to, *options]) == 0
    return output


@pytest.fixture
def coco_set(tmp_path: Path) -> Path:
    """The table of ``make_table`` as a folder in COCO's layout."""
    table = make_table(tmp_path / "images")
    write_coco_folder(table, tmp_path / "coco")
    (tmp_path / "images").rename(tmp_path / "coco/images")
    return tmp_path / "coco"


@pytest.mark.parametrize("to", BOX_FORMATS)
def test_round_trip_through_every_format(
    to: str, coco_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read(coco_set)
    output = convert(coco_set, tmp_path / f"as {to}", to)
    assert find_format(output).format == to  # detected
    after = read(output)
    assert sorted(after.class_map.names) == sorted(before.class_map.names)
    expected, actual = ground_truth_of(before), ground_truth_of(after)
    assert actual.keys() == expected.keys()  # the negative image too
    for name, instances in expected.items():
        assert [label for label, _ in actual[name]] == [label for label, _ in instances], name
        for (_, box), (_, original) in zip(actual[name], instances, strict=True):
            np.testing.assert_allclose(box, original, atol=ROUNDING)
    printed = capsys.readouterr().out
    assert "read again: 4 of 4 images, 15 of 15 instances" in printed
    assert after.has_masks == (to in MASK_FORMATS)
    assert after.has_masks or "mask" in printed  # losses are reported
    if to in ("coco", "voc", "yolo", "cvat", "csv"):  # formats that store splits
        assert sorted(after.split.tolist()) == ["train", "train", "val", "val"]
    back = convert(output, tmp_path / "back", "coco")
    assert ground_truth_of(read(back)).keys() == expected.keys()


def test_convert_refuses_a_folder_in_use(coco_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used/file").write_text("mine", encoding="utf-8")
    assert main(["convert", str(coco_set), str(tmp_path / "used"), "--to", "voc"]) == 1
    assert "the folder is not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["file"]


@pytest.mark.parametrize("to", BOX_FORMATS)
def test_published_scores_from_every_format(to: str, shared_data: Path, tmp_path: Path) -> None:
    """The twelve COCO metrics on 100 COCO images, with the ground truth read from each format."""
    expected = json.loads((shared_data / "_expected/pycocotools_stats.json").read_text())["padilla/test_coco_eval"]
    source = read_coco(shared_data / expected["gt"], False)
    sizes = {str(name): record.size_hw for name, record in zip(source.media, source, strict=True)}
    blank_images(tmp_path / "coco/images", {name.replace(".jpg", ".png"): size for name, size in sizes.items()})
    text = (shared_data / expected["gt"]).read_text().replace(".jpg", ".png")
    (tmp_path / "coco/instances.json").write_text(text)
    table = read(convert(tmp_path / "coco", tmp_path / to, to)) if to != "coco" else read(tmp_path / "coco")
    id_of = dict(zip(map(file_stem, source.media.tolist()), source.image_id.tolist(), strict=True))
    # restore the ids of the source: equal scores are ranked in the order of the ids
    table = replace(table, image_id=np.array([id_of[record.path.stem] for record in table]))
    name_of = dict(zip(source.class_map.category_ids, source.class_map.names, strict=True))
    results = [
        {
            "image_id": result["image_id"],
            "category_id": table.class_map.category_id_of(table.class_map.label_of(name_of[result["category_id"]])),
            "bbox": result["bbox"],
            "score": result["score"],
        }
        for result in json.loads((shared_data / expected["dt"]).read_text())["annotations"]
        if name_of[result["category_id"]] in table.class_map.names
    ]
    write_coco(table, tmp_path / "ground_truth.json")
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    scores = evaluate_files(tmp_path / "ground_truth.json", tmp_path / "results.json", iou_type="bbox").scalars()
    np.testing.assert_allclose([scores[f"bbox_{name}"] for name in STATS], expected["stats"], atol=2e-6)


def file_stem(name: str) -> str:
    return Path(name).stem


def test_splits_from_two_files(tmp_path: Path) -> None:
    blank_images(tmp_path / "images", {"a.png": (10, 10), "b.png": (10, 10)})
    (tmp_path / "t.csv").write_text("a.png,1,1,4,4,dog\n", encoding="utf-8")
    (tmp_path / "v.csv").write_text("b.png,1,1,4,4,ant\n", encoding="utf-8")
    table = read(tmp_path / "t.csv", images=tmp_path / "images", val_annotations=tmp_path / "v.csv")
    assert table.split.tolist() == ["train", "val"]
    assert ground_truth_of(table) == {"a.png": [("dog", [1, 1, 3, 3])], "b.png": [("ant", [1, 1, 3, 3])]}


TEXT_FORMATS = [f"dets_{name}_abs_{box}" for name in ("classid", "classname") for box in ("xywh", "xyx2y2")]
"""The relative formats are not tested: their boxes differ by half a pixel."""


@pytest.mark.parametrize("detections", TEXT_FORMATS)
@pytest.mark.parametrize("ground_truth", ["gts_vocpascal_format", "gts_coco_format"])
def test_toy_example_scores_as_pycocotools(
    ground_truth: str, detections: str, shared_data: Path, tmp_path: Path
) -> None:
    """Two formats of the ground truth and four of the detections, against pycocotools on the published COCO files."""
    toy = shared_data / "padilla_metrics/toyexample"
    (gt,), (dt,) = (toy / "gts_coco_format").iterdir(), (toy / "dets_coco_format").iterdir()
    table = (
        read(toy / ground_truth, images=toy / "images") if "voc" in ground_truth else read(gt, images=toy / "images")
    )
    classes = (toy / "voc.names").read_text().split()
    results = []
    for record in table:
        path = toy / detections / f"{record.path.stem}.txt"  # missing for two images without detections
        for line in path.read_text().splitlines() if path.is_file() else []:
            name, score, *numbers = line.split()
            x, y, w, h = map(float, numbers)
            if "xyx2y2" in detections:
                w, h = w - x, h - y
            name = classes[int(name)] if name.isdigit() else name
            category = table.class_map.category_id_of(table.class_map.label_of(name))
            box, number = [x, y, w, h], record.image_id
            results.append({"image_id": number, "category_id": category, "bbox": box, "score": float(score)})
    write_coco(table, tmp_path / "ground_truth.json")
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    scores = evaluate_files(tmp_path / "ground_truth.json", tmp_path / "results.json", iou_type="bbox").scalars()
    expected = pycocotools_stats(gt, dt)
    np.testing.assert_allclose([scores[f"bbox_{name}"] or 0 for name in STATS], expected, atol=1e-6)


def pycocotools_stats(gt: Path, dt: Path) -> list[float]:
    """Evaluate the published files with pycocotools; annotations are numbered from 1, because id 0 is never matched."""
    ground_truth = COCO()
    ground_truth.dataset = json.loads(gt.read_text())
    for number, annotation in enumerate(ground_truth.dataset["annotations"], start=1):
        annotation["id"] = number
    ground_truth.createIndex()
    evaluation = COCOeval(ground_truth, ground_truth.loadRes(json.loads(dt.read_text())["annotations"]), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [max(value, 0.0) for value in evaluation.stats.tolist()]


def test_class_folders_become_a_list_of_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blank_images(tmp_path / "folders", {f"{name}/{number}.png": (8, 8) for name in ("ant", "bee") for number in "12"})
    output = convert(tmp_path / "folders", tmp_path / "list", "csv")
    assert "read again: 4 of 4 images, 4 with the same labels" in capsys.readouterr().out
    again = read(output)
    assert [again.class_map.names[index] for index in again.class_index[:, 0]] == ["ant", "ant", "bee", "bee"]
    assert main(["convert", str(tmp_path / "folders"), str(tmp_path / "voc"), "--to", "voc"]) == 1
    assert "cannot store the classes of whole images" in capsys.readouterr().err
