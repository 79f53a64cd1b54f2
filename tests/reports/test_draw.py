"""Drawing: everything stays inside the image, colours depend on labels, all kinds of content are drawn equally."""

from __future__ import annotations

from colorsys import rgb_to_hsv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detseg.annotations.builder import TableBuilder
from detseg.annotations.table import Record
from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError
from detseg.masks import mask_to_rle
from detseg.reports.draw import _tag_positions, draw, draw_class
from detseg.reports.palette import PALETTE, colour_of, ink_on, instance_colour
from detseg.structures import ClassPrediction, FieldPredictions, Prediction

CLASSES = ClassMap(("bolt", "nut", "a class with a name that is much longer than most images are wide"))
GREY = 90


def canvas(height: int = 120, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def target(boxes: list[list[float]], labels: list[int], size_hw: tuple[int, int] | None = None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "labels": np.array(labels, np.int64),
    }
    if size_hw:
        masks = np.zeros((len(labels), *size_hw), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
            mask[int(y1) : int(y2), int(x1) : int(x2)] = 1
        result["masks"] = masks
    return result


def prediction(ground_truth: dict[str, Any], scores: list[float]) -> Prediction:
    rles = [mask_to_rle(mask) for mask in ground_truth["masks"]]
    size_hw = ground_truth["masks"].shape[1:]
    return Prediction(size_hw, ground_truth["boxes"], ground_truth["labels"], np.array(scores, np.float32), rles)


def record(ground_truth: dict[str, Any], size_hw: tuple[int, int], **flags: bool) -> Record:
    builder = TableBuilder(CLASSES, Path(), source="test")
    builder.add_image("a.jpg", size_hw)
    for i, box in enumerate(ground_truth["boxes"].astype(float)):
        xywh = np.concatenate([box[:2], box[2:] - box[:2]])
        rle = mask_to_rle(ground_truth["masks"][i])
        builder.add_instance(xywh, int(ground_truth["labels"][i]), segmentation=rle, area=1.0, **flags)
    return builder.build()[0]


@pytest.mark.parametrize(
    ("boxes", "labels"),
    [
        ([], []),
        ([[40, 40, 90, 80]], [1]),
        ([[40, 40, 90, 80], [60, 50, 140, 110]], [1, 2]),
        ([[0, 0, 160, 120]], [2]),  # the whole canvas
        ([[150, 110, 160, 120]], [3]),  # a long name in a corner
        ([[-30, -30, 5, 5], [155, 100, 400, 300]], [1, 2]),  # beyond the image
        ([[10, 10, 10, 10]], [1]),  # no area
    ],
)
def test_draws_a_copy_of_the_same_shape(boxes: list[list[float]], labels: list[int]) -> None:
    image = canvas()
    out = draw(image, target(boxes, labels), CLASSES)
    assert out.shape == image.shape
    assert out.dtype == np.uint8
    assert (image == GREY).all()
    assert (out != image).any() == bool(boxes)


@pytest.mark.parametrize("size_hw", [(1, 1), (7, 300), (32, 32), (64, 48), (900, 1200)])
def test_image_sizes(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    out = draw(canvas(*size_hw), target([[0, 0, width, height]] * 3, [1, 2, 3], size_hw), CLASSES)
    assert out.shape == (*size_hw, 3)


def test_ground_truth_dict_tensors_record_and_prediction_draw_the_same_masks() -> None:
    size_hw = (120, 160)
    ground_truth = target([[20, 20, 70, 60], [90, 50, 150, 110]], [1, 2], size_hw)
    inside = (slice(35, 55), slice(30, 60))  # without box, outline or name
    from_dict = draw(canvas(), ground_truth, CLASSES)
    assert (from_dict[inside] == from_dict[35, 30]).all()
    assert not (from_dict[inside] == GREY).all()
    tensors = {key: torch.from_numpy(value) for key, value in ground_truth.items()}
    assert np.array_equal(draw(canvas(), tensors, CLASSES), from_dict)
    assert np.array_equal(draw(canvas(), record(ground_truth, size_hw), CLASSES), from_dict)
    soft = {**tensors, "masks": tensors["masks"][:, None] * 0.7, "scores": torch.tensor([0.9, 0.8])}
    assert np.array_equal(draw(canvas(), soft, CLASSES), draw(canvas(), prediction(ground_truth, [0.9, 0.8]), CLASSES))


def test_low_scores_are_not_drawn() -> None:
    ground_truth = target([[20, 20, 70, 60], [90, 50, 150, 110]], [1, 2], (120, 160))
    both = prediction(ground_truth, [0.9, 0.3])
    assert np.array_equal(draw(canvas(), both, CLASSES), draw(canvas(), both.above(0.5), CLASSES))
    assert not np.array_equal(draw(canvas(), both, CLASSES, min_score=0.2), draw(canvas(), both, CLASSES))
    assert np.array_equal(draw(canvas(), both, CLASSES, min_score=0.95), canvas())


def test_holes_are_not_filled() -> None:
    ring = target([[20, 20, 100, 100]], [1], (120, 160))
    ring["masks"][0, 50:70, 50:70] = 0
    out = draw(canvas(), ring, CLASSES)
    assert (out[56:64, 56:64] == GREY).all()
    assert not (out[35:45, 35:45] == GREY).any(axis=-1).all()


def test_record_is_scaled_to_a_resized_image_and_crowds_are_marked() -> None:
    ground_truth = target([[20, 20, 70, 60]], [1], (120, 160))
    large = draw(canvas(240, 320), record(ground_truth, (120, 160)), CLASSES)
    assert (large[60:100, 60:120] == large[60, 60]).all()
    assert not (large[60, 60] == GREY).all()
    crowd = draw(canvas(240, 320), record(ground_truth, (120, 160), iscrowd=True), CLASSES)
    assert not np.array_equal(crowd, large)


def test_record_with_a_class_only() -> None:
    builder = TableBuilder(CLASSES, Path(), source="test")
    builder.add_image("a.jpg", (120, 160), class_index=1)
    out = draw(canvas(), builder.build()[0], CLASSES)
    assert (out[0, 0] == colour_of(2)).all()
    assert (out[60:] == GREY).all()


def test_class_prediction_is_written_in_the_corner() -> None:
    out = draw_class(canvas(), ClassPrediction(np.array([0.2, 0.7, 0.1], np.float32)), CLASSES)
    assert (out[0, 0] == colour_of(2)).all()
    assert (out[100:] == GREY).all()
    assert draw_class(canvas(3, 3), ClassPrediction(np.ones(1, np.float32)), CLASSES).shape == (3, 3, 3)


def test_each_label_field_has_one_line() -> None:
    fields = (LabelField("colour", ClassMap(("red", "blue"))), LabelField("shape", ClassMap(("round", "flat"))))
    builder = TableBuilder(joined(fields), Path(), source="test", label_fields=fields)
    for index in ((1, -1), (1, 0), (-1, -1)):
        builder.add_image("a.jpg", (120, 160), class_index=index)
    table = builder.build()
    ground_truth = [draw(canvas(), record, table.class_map) for record in table]
    heights = [int((out[:, 0] != GREY).any(axis=1).sum()) for out in ground_truth]
    assert heights[1] > heights[0] > heights[2] == 0
    assert (ground_truth[1][0, 0] == colour_of(2)).all()
    colour, shape = (ClassPrediction(np.array(values, np.float32)) for values in ([0.1, 0.9], [0.8, 0.2]))
    predicted = draw_class(canvas(), FieldPredictions({"colour": colour, "shape": shape}), table.class_map)
    assert int((predicted[:, 0] != GREY).any(axis=1).sum()) == heights[1]
    assert (predicted[0, 0] == colour_of(2)).all()


WHITE = (255, 255, 255)


@pytest.mark.parametrize(
    ("third", "scores", "centre"),
    [
        (0.0, None, GREY),
        (1.0, None, WHITE),  # hidden: a ring
        (2.0, None, colour_of(1)),
        (0.1, [0.9], WHITE),
        (0.6, [0.9], colour_of(1)),
        (0.6, [0.1], GREY),
    ],
)
def test_keypoints_by_visibility_or_score(third: float, scores: list[float] | None, centre: Any) -> None:
    with_point = {**target([[20, 20, 140, 110]], [1]), "keypoints": np.array([[[80.0, 65.0, third]]])}
    if scores is not None:
        with_point["scores"] = np.array(scores)
    assert (draw(canvas(), with_point, CLASSES)[65, 80] == centre).all()


@pytest.mark.parametrize(("visibility", "drawn"), [(2.0, True), (1.0, True), (0.0, False)])
def test_skeleton_lines_connect_labelled_points(visibility: float, drawn: bool) -> None:
    points = np.array([[[40.0, 65.0, 2], [120.0, 65.0, visibility], [80.0, 30.0, 2]]])
    content = {**target([[20, 20, 140, 110]], [1]), "keypoints": points}
    out = draw(canvas(), content, CLASSES, skeleton=[(0, 1)])
    assert (out[65, 80] != GREY).any() == drawn
    assert (out[30, 80] == colour_of(3)).all()  # each point has the colour of its index
    assert (draw(canvas(), content, CLASSES)[65, 80] == GREY).all()  # control


@pytest.mark.parametrize("box", [[0, 0, 10, 10], [150, 110, 160, 120], [-50, 60, -10, 90], [0, 0, 160, 120]])
def test_names_stay_inside_the_image(box: list[float]) -> None:
    positions = _tag_positions(np.array(box), (15, 50), (120, 160))
    assert (positions >= 0).all()
    assert (positions[:, 2] <= 160).all()
    assert (positions[:, 3] <= 120).all()


def test_many_overlapping_names_can_be_drawn() -> None:
    boxes = np.random.default_rng(0).uniform(0, 100, (200, 2))
    crowd = target(np.concatenate([boxes, boxes + 9], axis=1).tolist(), [1] * 200)
    assert draw(canvas(), crowd, CLASSES).shape == (120, 160, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Prediction((9, 9), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32)), "9 x 9"),
        (target([[1, 1, 5, 5]], [1], (9, 9)), "9 x 9"),
        (target([[1, 1, 5, 5]], [4]), "label 4"),
    ],
)
def test_rejects_invalid_content(content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw(canvas(), content, CLASSES)


def test_colours_are_fixed_distinct_and_have_contrast() -> None:
    assert len(set(map(colour_of, range(1, 37)))) == 36
    assert colour_of(1) == PALETTE[0]
    assert ink_on((240, 228, 66)) == (0, 0, 0)
    assert ink_on((51, 34, 136)) == (255, 255, 255)


def test_instances_of_one_class_have_different_hues() -> None:
    colours = [instance_colour(i) for i in range(100)]
    assert len(set(colours)) == 100
    hues = np.array([rgb_to_hsv(*(channel / 255 for channel in colour))[0] for colour in colours[:6]])
    distance = np.abs(hues[:, None] - hues)
    distance = np.minimum(distance, 1 - distance)[~np.eye(6, dtype=bool)]
    assert distance.min() > 0.08
    boxes = [[10, 40, 60, 90], [90, 40, 140, 90]]
    one, two = (draw(canvas(), target(boxes, [1, 1]), ClassMap(names)) for names in (("nut",), ("nut", "bolt")))
    assert [tuple(one[60, x]) for x in (10, 90)] == colours[:2]
    assert [tuple(two[60, x]) for x in (10, 90)] == [colour_of(1)] * 2  # control
    assert np.array_equal(one, draw(canvas(), target(boxes, [1, 1]), ClassMap(("nut",))))
