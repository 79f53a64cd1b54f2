"""Test that invalid model inputs are refused with the image's id."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from detseg.errors import DataError
from detseg.models.input_checks import check_images, check_targets

IMAGE = torch.zeros(3, 20, 30, dtype=torch.uint8)
NAN, INF = float("nan"), float("inf")


def target(boxes: Any = ((1, 2, 3, 4),), labels: Any = None, **more: Tensor) -> dict[str, Tensor]:
    boxes = boxes if isinstance(boxes, Tensor) else torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.ones(len(boxes), dtype=torch.int64) if labels is None else torch.tensor(labels)
    return {"boxes": boxes, "labels": labels, "image_id": torch.tensor(17), **more}


@pytest.mark.parametrize(
    "boxes",
    [(), ((1, 2, 3, 4),), ((0, 0, 30, 20), (5, 5, 6, 6)), ((-1, -1, 31, 21),), ((0, 0, 1e-3, 1e-3),)],
)
def test_valid_targets_pass(boxes: Any) -> None:
    check_targets([IMAGE, IMAGE], [target(boxes), target(())], num_labels=2, masks=False)
    masks = torch.zeros(len(boxes), 20, 30, dtype=torch.uint8)
    check_targets([IMAGE], [target(boxes, masks=masks)], num_labels=2, masks=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (target([(3, 2, 3, 4)]), r"instance 0: box \[3.0, 2.0, 3.0, 4.0\].*30 x 20"),
        (target([(1, 2, 3, 4), (3, 2, 1, 4)]), "instance 1"),
        (target([(1, 2, INF, 4)]), "inf"),
        (target([(NAN, 2, 3, 4)]), "nan"),
        (target([(-INF, 2, 3, 4)]), "inf"),
        (target([(1, 2, 32, 4)]), "inside the image"),
        (target([(1, 2, 3, 22)]), "inside the image"),
        (target(labels=[0]), "label 0 is outside 1..2"),
        (target(labels=[3]), "label 3 is outside 1..2"),
        (target(labels=[1, 1]), r"int64 \[1\]"),
        (target(labels=[1.0]), "labels are torch.float32"),
        (target(torch.zeros(0)), r"boxes are torch.float32 \[0\]"),
        (target(torch.tensor([[1, 2, 3, 4]])), "boxes are torch.int64"),
        ({"image_id": torch.tensor(17)}, "no 'boxes'"),
    ],
)
def test_wrong_boxes_and_labels_are_refused_with_image_id(wrong: dict[str, Tensor], message: str) -> None:
    with pytest.raises(DataError, match=f"image_id 17.*{message}"):
        check_targets([IMAGE, IMAGE], [{**target(), "image_id": torch.tensor(16)}, wrong], num_labels=2, masks=False)


@pytest.mark.parametrize("shape", [(1, 30, 20), (2, 20, 30), (20, 30), (1, 20, 29)])
def test_masks_must_have_the_image_size(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="image_id 17: masks are"):
        check_targets([IMAGE], [target(masks=torch.zeros(shape))], num_labels=2, masks=True)
    with pytest.raises(DataError, match="no 'masks'"):
        check_targets([IMAGE], [target()], num_labels=2, masks=True)


def test_one_target_per_image() -> None:
    for targets in (None, [], [target(), target()]):
        with pytest.raises(DataError, match="one target per image"):
            check_targets([IMAGE], targets, num_labels=2, masks=False)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 0, 5, dtype=torch.uint8), r"\[3, 0, 5\]"),
        (torch.zeros(1, 5, 5, dtype=torch.uint8), r"\[1, 5, 5\]"),
        (torch.zeros(5, 5, dtype=torch.uint8), r"\[5, 5\]"),
        (torch.zeros(3, 5, 5, dtype=torch.float64), "float64"),
        (torch.zeros(3, 5, 5, dtype=torch.int64), "int64"),
        (torch.full((3, 5, 5), 255.0), "divide by 255"),
        (torch.full((3, 5, 5), -2.0), "normalisation"),
        (torch.full((3, 5, 5), NAN), "nan"),
    ],
)
def test_wrong_images_are_refused(image: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=f"image 1 of the batch: .*{message}"):
        check_images([IMAGE, image])


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(DataError, match="no image"):
        check_images([])


def test_detectors_check_their_inputs(small: Any) -> None:
    model = small.detector()
    images, targets = small.batch([(64, 64)])
    targets[0]["labels"][0] = 4
    with pytest.raises(DataError, match=r"image_id 100, instance 0: label 4 is outside 1\.\.3"):
        model(images, targets)
    with pytest.raises(DataError, match="no targets"):
        model(images)
