"""Predict and evaluate with tiles, by a perfect network: it reads the objects of a tile from its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import detseg.inference.predictor as predictor_module
from detseg.annotations import AnnotationTable
from detseg.annotations.builder import TableBuilder
from detseg.classes import ClassMap
from detseg.datasets import Dataset, data_loader
from detseg.engine.evaluate import evaluate
from detseg.engine.evaluator import evaluator_for_dataset, make_evaluator
from detseg.engine.tiled_evaluator import TiledEvaluator
from detseg.errors import DataError
from detseg.inference.predictor import Predictor
from detseg.masks import mask_to_rle, masks_to_boxes, rle_to_mask
from detseg.preprocess import Preprocessing
from detseg.structures import RawPrediction
from detseg.tiling import Tiling

SIZE_HW = (300, 400)
TILES = Preprocessing(128, 213, tiling=Tiling(128, 0.2, whole_image=False))
OBJECTS = [  # x, y, radius, label; tiles begin at 0, 102, 172 (y) and 0, 102, 204, 272 (x)
    (115, 115, 30, 1),  # cut by four tiles
    (40, 40, 12, 2),
    (205, 40, 25, 1),
    (255, 40, 25, 1),  # touches the last one
    (290, 200, 85, 2),  # larger than a tile
]


def mask_of(x: int, y: int, radius: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, np.uint8)
    cv2.circle(mask, (x, y), radius, 1, -1)
    return mask


def image() -> np.ndarray:
    """uint8 [H, W, 3]: the bits of the number of an object are its colours, so that it can be read after a resize."""
    pixels = np.zeros((*SIZE_HW, 3), np.uint8)
    for number, (*place, _) in enumerate(OBJECTS, start=1):
        pixels[mask_of(*place) == 1] = [255 * (number >> bit & 1) for bit in range(3)]
    return pixels


def numbers_of(pixels: np.ndarray) -> np.ndarray:
    """int64 [h, w]: number of the object of each pixel, 0 for none."""
    return np.asarray((pixels > 127) @ np.array([1, 2, 4]), np.int64)


MASKS = [(numbers_of(image()) == number).astype(np.uint8) for number in range(1, len(OBJECTS) + 1)]


def perfect(pixels: np.ndarray) -> RawPrediction:
    """The objects of uint8 [h, w, 3], with masks as the targets of a mask head are."""
    places = numbers_of(pixels)
    numbers = [number for number in range(1, len(OBJECTS) + 1) if (places == number).any()]
    masks = np.array([places == number for number in numbers], np.uint8).reshape(-1, *pixels.shape[:2])
    boxes, probs = masks_to_boxes(masks), np.zeros((len(masks), 28, 28), np.float32)
    for i, (mask, (x1, y1, x2, y2)) in enumerate(zip(masks, boxes, strict=True)):
        bins = (np.arange(28, dtype=np.float32) + 0.5) / 28
        x, y = np.meshgrid(x1 + bins * (x2 - x1), y1 + bins * (y2 - y1))
        probs[i] = cv2.remap(mask.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    labels = np.array([OBJECTS[number - 1][3] for number in numbers], np.int64)
    return RawPrediction(boxes, labels, np.linspace(0.9, 0.8, len(masks), dtype=np.float32), probs)


@dataclass
class Description:
    arch: str = "perfect"
    task: str = "segment"
    class_map: ClassMap = ClassMap.from_names(("disc", "ring"))
    label_fields: tuple[Any, ...] = ()
    keypoints: Any = None
    preprocessing: Preprocessing = TILES


@dataclass
class PerfectBackend:
    description: Description
    device: str = "cpu"
    sizes: list[int] = field(default_factory=list)

    def __call__(self, images: Sequence[np.ndarray]) -> list[RawPrediction]:
        self.sizes.append(len(images))
        return [perfect(pixels) for pixels in images]


class PerfectModel(torch.nn.Module):
    def forward(self, images: Sequence[torch.Tensor]) -> list[RawPrediction]:
        return [perfect(image.permute(1, 2, 0).numpy()) for image in images]


def opened(monkeypatch: pytest.MonkeyPatch, preprocessing: Preprocessing, **options: Any) -> Predictor:
    backend = PerfectBackend(Description(preprocessing=preprocessing))
    monkeypatch.setattr(predictor_module, "_open", lambda run, device: backend)
    return Predictor("run", **options)


def best_iou(rles: Sequence[Any], mask: np.ndarray) -> float:
    masks = [rle_to_mask(rle) for rle in rles]
    return max(float((other & mask).sum() / (other | mask).sum()) for other in masks)


@pytest.fixture
def table(tmp_path: Path) -> AnnotationTable:
    builder = TableBuilder(Description().class_map, tmp_path, source="generated")
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image()[..., ::-1])
        builder.add_image(f"{number}.png", SIZE_HW, image_id=10 + number)
        for mask, (*_, label) in zip(MASKS, OBJECTS, strict=True):
            x1, y1, x2, y2 = masks_to_boxes(mask[None])[0].tolist()
            builder.add_instance((x1, y1, x2 - x1, y2 - y1), label, segmentation=mask_to_rle(mask))
    return builder.build()


@pytest.mark.parametrize("whole_image", [False, True])
def test_each_object_is_one_mask(whole_image: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = opened(monkeypatch, TILES, whole_image=whole_image)
    prediction = predictor(image())
    assert sorted(prediction.labels.tolist()) == [1, 1, 1, 2, 2]
    for mask, (*_, label) in zip(MASKS, OBJECTS, strict=True):
        same = [i for i in range(len(prediction)) if prediction.labels[i] == label]
        assert best_iou([prediction.rles[i] for i in same], mask) >= 0.95
    assert prediction.size_hw == SIZE_HW
    assert (np.diff(prediction.scores) <= 0).all()
    assert max(predictor.backend.sizes) == predictor_module.TILES  # type: ignore[attr-defined]


def test_control_without_merging_objects_are_counted_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_collected(views: Any, parts: Any) -> Any:
        return replace(
            parts[0],
            labels=np.concatenate([part.labels for part in parts]),
            rles=[r for part in parts for r in part.rles],
        )

    predictor = opened(monkeypatch, TILES)
    monkeypatch.setattr(predictor_module, "merge_views", only_collected)
    prediction = predictor(image())
    assert len(prediction.labels) > len(OBJECTS) + 3
    assert best_iou(prediction.rles, MASKS[0]) < 0.95


def test_tiles_of_another_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    prediction = opened(monkeypatch, replace(TILES, min_size=64))(image())
    assert sorted(prediction.labels.tolist()) == [1, 1, 1, 2, 2]
    assert min(best_iou(prediction.rles, mask) for mask in MASKS) > 0.9


def test_files_bytes_and_pixels_are_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    predictor, path = opened(monkeypatch, TILES), tmp_path / "a.png"
    cv2.imwrite(str(path), image()[..., ::-1])
    expected = predictor(image())
    for other in predictor.many([path, path.read_bytes(), torch.from_numpy(image()).permute(2, 0, 1)]):
        np.testing.assert_array_equal(other.boxes, expected.boxes)
        assert other.rles == expected.rles


def test_tiles_are_those_of_the_training_unless_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(monkeypatch, TILES).preprocessing.tiling == TILES.tiling
    assert opened(monkeypatch, TILES, tile=0).preprocessing.tiling is None
    assert opened(monkeypatch, TILES, tile=200).preprocessing.tiling == Tiling(200, 0.2, whole_image=False)
    plain = replace(TILES, tiling=None)
    assert opened(monkeypatch, plain).preprocessing.tiling is None
    assert opened(monkeypatch, plain, tile=200).preprocessing.tiling == Tiling(200)
    with pytest.raises(DataError, match="--overlap without tiles"):
        opened(monkeypatch, plain, overlap=0.3)
    with pytest.raises(DataError, match="a classifier sees whole images"):
        opened(monkeypatch, Preprocessing(64, 0, crop=64), tile=128)


@pytest.mark.parametrize("whole_image", [False, True])
def test_a_perfect_network_has_the_metrics_of_whole_images(whole_image: bool, table: AnnotationTable) -> None:
    preprocessing = replace(TILES, tiling=Tiling(128, 0.2, whole_image))
    dataset = Dataset(table, preprocessing, task="segment")
    evaluator = evaluator_for_dataset(dataset)
    metrics = evaluate(PerfectModel(), data_loader(dataset, 5), "cpu", evaluator=evaluator)
    assert metrics.stats["bbox"]["AP"] == pytest.approx(1)
    assert metrics.stats["segm"]["AP50"] == pytest.approx(1)
    assert metrics.stats["segm"]["AP75"] == pytest.approx(1)
    assert evaluator.images_seen == len(dataset)
    assert len(evaluator.results()) == 2 * len(OBJECTS)
    assert metrics.images == 2


def outputs_of(table: AnnotationTable) -> list[tuple[dict[str, torch.Tensor], RawPrediction]]:
    dataset = Dataset(table, TILES, task="segment")
    return [
        (target, perfect(pixels.permute(1, 2, 0).numpy()))
        for pixels, target in (dataset[i] for i in range(len(dataset)))
    ]


def new_evaluator(table: AnnotationTable) -> TiledEvaluator:
    evaluator = make_evaluator(table, "segment", TILES)
    assert isinstance(evaluator, TiledEvaluator)
    return evaluator


def test_tiles_may_come_in_any_order_and_from_several_processes(table: AnnotationTable) -> None:
    outputs = outputs_of(table)
    expected = new_evaluator(table)
    for target, output in outputs:
        expected.update([target], [output])
    parts = [new_evaluator(table) for _ in range(3)]
    for position, i in enumerate(np.random.default_rng(0).permutation(len(outputs)).tolist()):
        parts[position % 3].update([outputs[i][0]], [outputs[i][1]])
    for other in parts[1:]:
        parts[0].add_bytes(other.to_bytes())
    assert parts[0].results() == expected.results()
    assert parts[0].images_seen == expected.images_seen == len(outputs)
    assert parts[0].compute().to_dict() == expected.compute().to_dict()


def test_a_repeated_tile_counts_once_and_an_incomplete_image_is_said(table: AnnotationTable) -> None:
    evaluator = new_evaluator(table)
    target, output = outputs_of(table)[0]
    evaluator.update([target, target], [output, output])
    assert (evaluator.images_seen, evaluator.repeats) == (1, 1)
    assert any("2 of 2 images have no predictions" in note for note in evaluator.compute().notes)
    with pytest.raises(DataError, match="1 targets but 2 outputs"):
        evaluator.update([target], [output, output])
