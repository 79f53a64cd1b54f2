"""``predict --outputs``: what is written is read again by the readers of this program; the next one removes it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg.annotations import AnnotationTable, read
from detseg.cli import main
from detseg.errors import DataError
from detseg.images import decode_image
from detseg.inference import label_files
from detseg.inference.output_paths import class_folder
from detseg.inference.predicted_records import mask_rings
from detseg.inference.prediction_files import read_results
from detseg.label_images import decode_label_png
from detseg.masks import mask_to_rle, rasterize, rle_to_mask, segmentation_box, segmentation_to_rle
from detseg.options import PredictConfig
from detseg.recipes.predict import PredictResult, predict
from detseg.runtime.files import WriteError
from detseg.runtime.reporter import silent
from tests.inference.coloured_blobs import BLUE, RED, blob_runs, blobs

__all__ = ["blob_runs"]
pytestmark = pytest.mark.usefixtures("blob_runs")

IMAGES = {
    "a.png": blobs((5, 5, 30, 25, BLUE), (50, 30, 60, 38, RED)),
    "deep/b.png": blobs((40, 10, 75, 50, RED)),
    "empty.png": blobs(),
}
EVERY = "coco,csv,images,crops,masks,class-masks,labelme,yolo,cvat"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name, image in IMAGES.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image[..., ::-1])
    return tmp_path / "data"


def predicted(images: Path, outputs: str, run: str = "segment", **options: Any) -> PredictResult:
    config = PredictConfig(
        run=run,
        images=[str(images)],
        output=str(images.parent / "out"),
        outputs=outputs.split(","),  # type: ignore[arg-type]
        **{"min_score": 0.0, **options},
    )
    return predict(config, reporter=silent())


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def by_image(table: AnnotationTable) -> dict[str, Any]:
    return {Path(record.path).name: record for record in table}


@pytest.mark.parametrize("run", ["segment", "detect"])
@pytest.mark.parametrize("kind", ["labelme", "yolo", "cvat"])
def test_annotation_files_are_read_again(kind: str, run: str, images: Path) -> None:
    """The same classes and boxes, and masks: of CVAT all pixels, of outlines nearly all."""
    assert predicted(images, kind, run).is_complete
    table = read(images.parent / f"out/predicted-{kind}", images=images)
    again = by_image(table)
    for line in read_results(images.parent / "out"):
        name = Path(line["file_name"]).name
        record = again[name]
        assert [table.class_map.name_of(int(label)) for label in record.labels] == [
            result["category"] for result in line["results"]
        ]
        for row, result in enumerate(line["results"]):
            if run == "detect":
                np.testing.assert_allclose(record.boxes_xywh[row], result["bbox"], atol=1e-3)
                continue
            rle = {**result["segmentation"], "counts": result["segmentation"]["counts"].encode()}
            np.testing.assert_allclose(record.boxes_xywh[row], segmentation_box(rle), atol=0.3)
            stored, mask = rle_to_mask(rle), rasterize(record.segmentations[row], record.size_hw, record.size_hw)
            iou = (mask & stored).sum() / (mask | stored).sum()
            assert iou == 1 if kind == "cvat" else iou > 0.93
    assert sum(len(record) for record in again.values()) == 3


def test_files_with_other_classes_are_noticed(images: Path) -> None:
    """Control of the test above: a changed file does not have the same boxes."""
    predicted(images, "labelme", "detect")
    path = images.parent / "out/predicted-labelme/a.json"
    content = json.loads(path.read_text())
    content["shapes"][0]["points"][0][0] += 3
    path.write_text(json.dumps(content))
    record = by_image(read(images.parent / "out/predicted-labelme", images=images))["a.png"]
    first = next(line for line in read_results(images.parent / "out") if line["file_name"] == "a.png")["results"][0]
    assert abs(record.boxes_xywh[0] - first["bbox"]).max() > 2


def test_labelme_finds_the_images_by_relative_paths(images: Path) -> None:
    predicted(images, "labelme")
    for file in (images.parent / "out/predicted-labelme").rglob("*.json"):
        assert (file.parent / json.loads(file.read_text())["imagePath"]).is_file()


def test_masks_have_the_numbers_of_objects_and_classes(images: Path) -> None:
    predicted(images, "masks,class-masks")
    out = images.parent / "out"
    numbers, labels = (decode_label_png(out / f"predicted-{kind}/a.png") for kind in ("masks", "class-masks"))
    assert (numbers.dtype, labels.dtype) == (np.uint16, np.uint8)
    assert (numbers[10, 10], numbers[34, 55], numbers[0, 0]) == (1, 2, 0)
    assert (labels[10, 10], labels[34, 55], labels[0, 0]) == (2, 1, 0)  # large, small
    assert not decode_label_png(out / "predicted-masks/empty.png").any()
    predicted(images, "masks", min_score=0.9)
    assert decode_label_png(out / "predicted-masks/a.png")[34, 55] == 0  # its score is lower


def test_crops_are_a_data_set_of_classes(images: Path) -> None:
    predicted(images, "crops", "detect")
    folder = images.parent / "out/predicted-crops"
    assert names(folder) == ["large/a.png-1.jpg", "large/deep/b.png-1.jpg", "small/a.png-2.jpg"]
    crop = decode_image(folder / "large/a.png-1.jpg")
    assert crop.shape == (20, 25, 3)
    assert np.abs(crop.astype(int) - BLUE).mean() < 6
    assert read(folder, format="folders").class_map.names == ("large", "small")


def test_names_of_classes_that_folders_cannot_have() -> None:
    expected = {
        "bolt": "bolt",
        "M8 x 20": "M8 x 20",
        "볼트": "볼트",
        "a/b": "a_b~3",
        "..": "_~3",
        "": "~3",
        "con:": "con_~3",
    }
    assert {name: class_folder({"category": name, "category_id": 3}) for name in expected} == expected
    assert len(class_folder({"category": "n" * 300, "category_id": 3})) < 120


def test_csv_of_a_detector(images: Path) -> None:
    predicted(images, "csv", "keypoints")
    rows = list(csv.DictReader((images.parent / "out/predictions.csv").open(encoding="utf-8")))
    assert [row["filename"] for row in rows] == ["a.png", "a.png", "deep/b.png", "empty.png"]
    assert [row["class"] for row in rows] == ["large", "small", "large", ""]
    assert [float(rows[0][name]) for name in ("xmin", "ymin", "xmax", "ymax")] == [5, 5, 30, 25]
    assert (rows[0]["left_end_x"], rows[0]["right_end_x"]) == ("5.0", "30.0")
    assert read(images.parent / "out/predictions.csv", images=images).class_map.names == ("large", "small")


@pytest.mark.parametrize("run", ["classify", "fields"])
def test_csv_and_lines_of_a_classifier_have_all_probabilities(run: str, images: Path) -> None:
    predicted(images, "csv", run)
    rows = list(csv.DictReader((images.parent / "out/predictions.csv").open(encoding="utf-8")))
    assert [row["filename"] for row in rows] == ["a.png", "deep/b.png", "empty.png"]
    columns = ["p(red)", "p(blue)"] if run == "classify" else ["p(hue=red)", "p(hue=blue)"]
    for row, line in zip(rows, read_results(images.parent / "out"), strict=True):
        first = line["results"][0]
        assert [float(row[column]) for column in columns] == first["probabilities"]
        assert row["class" if run == "classify" else "hue"] == first["category"]


def test_outputs_that_a_model_cannot_make(images: Path) -> None:
    with pytest.raises(DataError, match="--outputs crops: a classifier finds no objects"):
        predicted(images, "crops", "classify")
    with pytest.raises(DataError, match=r"--outputs masks: this model predicts no masks \(task detect\)"):
        predicted(images, "masks", "detect")
    assert not (images.parent / "out").exists()


def test_only_what_was_chosen_is_written_and_the_next_predict_removes_it(images: Path) -> None:
    out = images.parent / "out"
    predicted(images, "jsonl")
    assert names(out) == ["images.json", "predictions.jsonl"]
    predicted(images, EVERY)
    folders = {path.name for path in out.iterdir() if path.is_dir()}
    assert folders == {"images", *(f"predicted-{kind}" for kind in EVERY.split(",")[3:])}
    assert {"predictions.csv", "predictions.json"} <= {*names(out)}
    mine = out / "predicted-crops/large/mine.jpg"
    mine.write_bytes(b"")
    predicted(images, "coco")
    assert names(out) == ["images.json", "predicted-crops/large/mine.jpg", "predictions.json", "predictions.jsonl"]
    sizes = [(image["width"], image["height"]) for image in json.loads((out / "images.json").read_text())["images"]]
    assert sizes == [(96, 64)] * 3


def test_outputs_inside_the_data_are_not_read_as_data(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", "segment", str(images), "--output", str(images / "out"), "--outputs", EVERY]
    assert main(command) == 0
    assert len([name for name in names(images) if name.endswith((".png", ".jpg"))]) > 6, "control: there are images"
    assert main([*command[:4], str(images.parent / "other"), "--no-draw"]) == 0
    lines = [*read_results(images.parent / "other")]
    assert [line["file_name"] for line in lines] == ["a.png", "deep/b.png", "empty.png"]
    assert "folder with output of this program, which is left out: out" in capsys.readouterr().out


def test_images_that_differ_only_in_their_suffix(images: Path) -> None:
    cv2.imwrite(str(images / "a.bmp"), IMAGES["deep/b.png"])
    result = predicted(images, "masks,labelme,yolo")
    out = images.parent / "out"
    assert {"a.bmp.png", "a.png.png", "empty.png"} <= {*names(out / "predicted-masks")}
    assert {"a.bmp.json", "a.png.json"} <= {*names(out / "predicted-labelme")}
    assert names(out / "predicted-yolo") == ["data.yaml", "labels/deep/b.txt", "labels/empty.txt"]
    assert (result.not_drawn, result.is_complete) == (2, False)  # YOLO has one file for both
    predicted(images, "jsonl")
    assert names(out) == ["images.json", "predictions.jsonl"]


def test_a_full_disk_keeps_the_results(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: Any) -> None:
        raise WriteError(28, f"{path}: no space left on the disk")

    monkeypatch.setattr(label_files, "write_json", full)
    with pytest.raises(WriteError, match="no space left"):
        predicted(images, "coco,labelme")
    assert len(json.loads((images.parent / "out/predictions.json").read_text())) == 3


def test_an_unknown_output_names_the_choices(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "segment", str(images), "--outputs", "coco,labelm"])
    error = capsys.readouterr().err
    assert "--outputs coco,labelm: it must be coco, jsonl, csv" in error
    assert "did you mean" in error


def test_outlines_show_parts_and_not_holes() -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[5:25, 5:25] = 1
    mask[10:15, 10:15] = 0
    mask[30:36, 30:48] = 1
    rings, holes = mask_rings(mask_to_rle(mask))
    assert (len(rings), holes) == (2, 1)
    filled = mask.copy()
    filled[10:15, 10:15] = 1
    again = rle_to_mask(segmentation_to_rle(rings, mask.shape))
    assert (again & filled).sum() / (again | filled).sum() > 0.95
    exact = mask_rings(mask_to_rle(filled), tolerance=0)[0]
    np.testing.assert_array_equal(rle_to_mask(segmentation_to_rle(exact, mask.shape)), filled)
    assert mask_rings(mask_to_rle(mask * 0)) == ([], 0)
    line, _ = mask_rings(mask_to_rle(np.eye(9, dtype=np.uint8)[:, :1]))
    assert segmentation_to_rle(line, (9, 1))["size"] == [9, 1]
