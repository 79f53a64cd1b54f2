"""Each rule of the sample format, violated once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from detseg.datasets import check_sample
from detseg.errors import DataError


def sample(n: int) -> tuple[Any, dict[str, Any]]:
    return torch.zeros(3, 20, 30, dtype=torch.uint8), {
        "boxes": torch.tensor([[1.0, 2, 30, 20]]).repeat(n, 1),
        "labels": torch.ones(n, dtype=torch.int64),
        "masks": torch.zeros(n, 20, 30, dtype=torch.uint8),
        "keypoints": torch.zeros(n, 4, 3),
        "area": torch.ones(n),
        "iscrowd": torch.zeros(n, dtype=torch.uint8),
        "image_id": torch.tensor(7),
    }


def check(image: Any, target: dict[str, Any]) -> None:
    check_sample(image, target, num_labels=3, where="a.png")


@pytest.mark.parametrize("n", [0, 1, 5])
def test_valid_samples_pass(n: int) -> None:
    image, target = sample(n)
    check(image, target)
    del target["masks"], target["keypoints"]
    check(image, target)


IMAGES = [
    (None, "image is a NoneType; it must be a tensor"),
    (torch.zeros(3, 20, 30), r"image is float32 \[3, 20, 30\]; it must be uint8 \[3, H, W\]"),
    (torch.zeros(1, 20, 30, dtype=torch.uint8), r"image is uint8 \[1, 20, 30\]"),
    (torch.zeros(20, 30, dtype=torch.uint8), r"image is uint8 \[20, 30\]"),
    (torch.zeros(3, 0, 30, dtype=torch.uint8), "no pixels"),
]


@pytest.mark.parametrize(("image", "message"), IMAGES)
def test_invalid_images(image: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"^a\.png: .*{message}"):
        check(image, sample(1)[1])


TARGETS: list[tuple[str, Any, str]] = [
    ("boxes", [[1, 2, 3, 4]], "boxes is a list; it must be a tensor"),
    ("boxes", torch.zeros(1, 4, dtype=torch.float64), r"boxes is float64 \[1, 4\]; it must be float32 \[N, 4\]"),
    ("boxes", torch.zeros(0), r"boxes is float32 \[0\]"),
    ("boxes", torch.tensor([[1.0, 2, 30.001, 20]]), r"is not 0 <= x1 < x2 <= 30"),
    ("boxes", torch.tensor([[-0.001, 2, 30, 20]]), "clip or remove it"),
    ("boxes", torch.tensor([[5.0, 2, 5, 20]]), "of instance 0 is not"),
    ("boxes", torch.tensor([[5.0, 9, 6, 8]]), "is not"),
    ("boxes", torch.tensor([[5.0, float("nan"), 6, 8]]), "nan"),
    ("boxes", torch.tensor([[5.0, 2, float("inf"), 8]]), "inf"),
    ("labels", torch.ones(2, dtype=torch.int64), r"labels is int64 \[2\]; it must be int64 \[1\]"),
    ("labels", torch.ones(1, dtype=torch.int32), "labels is int32"),
    ("labels", torch.tensor([0]), r"label 0 of instance 0 is outside 1\.\.3; 0 is background"),
    ("labels", torch.tensor([4]), r"label 4 of instance 0 is outside 1\.\.3"),
    ("area", torch.ones(1, dtype=torch.float64), "area is float64"),
    ("area", torch.tensor([-1.0]), r"areas \[-1\.0\] must be finite"),
    ("area", torch.tensor([float("nan")]), "must be finite"),
    ("iscrowd", torch.zeros(1, dtype=torch.int64), "iscrowd is int64"),
    ("iscrowd", torch.ones(1, dtype=torch.uint8), "exclude crowd instances"),
    (
        "masks",
        torch.zeros(1, 20, 31, dtype=torch.uint8),
        r"masks is uint8 \[1, 20, 31\]; it must be uint8 \[1, 20, 30\]",
    ),
    ("masks", torch.zeros(2, 20, 30, dtype=torch.uint8), r"masks is uint8 \[2, 20, 30\]"),
    ("masks", torch.zeros(1, 20, 30, dtype=torch.bool), "masks is bool"),
    ("masks", torch.full((1, 20, 30), 255, dtype=torch.uint8), "masks have the value 255; use 0 and 1"),
    ("keypoints", torch.zeros(1, 4, 2), "keypoints is float32"),
    ("keypoints", torch.tensor([[[40.0, 3, 2]]]), "a keypoint is outside the 30 x 20 image"),
    ("keypoints", torch.tensor([[[4.0, 3, 3]]]), "visibility must be 0, 1 or 2"),
    ("image_id", 7, "image_id is a int"),
    ("image_id", torch.tensor([7]), r"image_id is int64 \[1\]; it must be int64 \[\]"),
    ("image_id", torch.tensor(7.0), "image_id is float32"),
]


@pytest.mark.parametrize(("key", "value", "message"), TARGETS)
def test_invalid_targets(key: str, value: Any, message: str) -> None:
    image, target = sample(1)
    with pytest.raises(DataError, match=rf"^a\.png: .*{message}"):
        check(image, {**target, key: value})


@pytest.mark.parametrize("key", ["boxes", "labels", "area", "iscrowd", "image_id"])
def test_missing_entries(key: str) -> None:
    image, target = sample(0)
    del target[key]
    with pytest.raises(DataError, match=f"the target has no '{key}', only "):
        check(image, target)


@pytest.mark.parametrize(
    ("class_index", "fields", "message"),
    [
        (torch.tensor(0), (), None),
        (torch.tensor(2), (), None),
        (torch.tensor([0, -1, 3]), (1, 2, 4), None),
        (torch.tensor(3), (), r"class_index 3 is outside 0\.\.2"),
        (torch.tensor(-1), (), r"class_index -1 is outside 0\.\.2"),
        (torch.tensor([2]), (), r"class_index is int64 \[1\]; it must be int64 \[\]"),
        (torch.tensor([0, 2]), (3, 2), r"class_index \[0, 2\] is outside -1\.\.2, -1\.\.1"),
        (torch.tensor([0, 2]), (3, 2, 4), r"class_index is int64 \[2\]; it must be int64 \[3\]"),
        (torch.tensor(1.0), (), "class_index is float32"),
        (1, (), "class_index is a int"),
    ],
)
def test_classification(class_index: Any, fields: tuple[int, ...], message: str | None) -> None:
    image, target = sample(0)[0], {"class_index": class_index, "image_id": torch.tensor(1)}
    if message is None:
        check_sample(image, target, num_labels=3, where="a.jpg", field_sizes=fields)
    else:
        with pytest.raises(DataError, match=message):
            check_sample(image, target, num_labels=3, where="a.jpg", field_sizes=fields)
