"""Tables of user datasets, in the formats of torchvision's tutorials."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from detseg.annotations.from_dataset import table_from_dataset
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.masks import rle_to_mask

IMAGE = np.zeros((3, 20, 30), np.uint8)
MASKS = np.zeros((2, 20, 30), np.uint8)
MASKS[0, 2:6, 3:9] = 1
MASKS[1, 10:15, 20:21] = 1
BOXES = np.array([[3.0, 2, 9, 6], [20, 10, 21, 15]], np.float32)


def target(**changes: Any) -> dict[str, Any]:
    value = {"boxes": BOXES, "labels": np.array([1, 3]), **changes}
    return {key: item for key, item in value.items() if item is not ...}


@pytest.mark.parametrize(
    ("dataset", "counts", "classes"),
    [
        ([], [], 0),
        ([(IMAGE, {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int)})], [0], 0),
        ([(IMAGE, {"boxes": [], "labels": [], "masks": np.zeros((0, 20, 30))})], [0], 0),
        ([(IMAGE, target())], [2], 3),
        ([(IMAGE, target()), (IMAGE, target(boxes=BOXES[:0], labels=[], masks=[])), (IMAGE, target())], [2, 0, 2], 3),
    ],
)
def test_sizes(dataset: list[Any], counts: list[int], classes: int) -> None:
    table = table_from_dataset(dataset)
    assert table.instances_per_image().tolist() == counts
    assert table.class_map.names == tuple(f"class {i + 1}" for i in range(classes))
    assert table.image_id.tolist() == list(range(1, len(counts) + 1))
    assert all(str(name) == "" for name in table.media)


@pytest.mark.parametrize(
    "image",
    [
        IMAGE,
        IMAGE.astype(np.float32),
        IMAGE.transpose(1, 2, 0),
        IMAGE[0],
        np.zeros((20, 30, 4)),
        Image.new("RGB", (30, 20)),
    ],
)
def test_image_types(image: Any) -> None:
    table = table_from_dataset([(image, target())])
    assert table[0].size_hw == (20, 30)
    assert table.boxes_xywh.tolist() == [[3, 2, 6, 4], [20, 10, 1, 5]]


def test_all_target_keys() -> None:
    keypoints = np.ones((2, 4, 3))
    all_keys = target(
        masks=MASKS, area=np.array([24.5, 5]), iscrowd=np.array([0, 1]), ignore=[True, False], keypoints=keypoints,
        image_id=np.array([7]),
    )  # fmt: skip
    table = table_from_dataset([(IMAGE, all_keys)], ClassMap(("a", "b", "c", "d")))
    assert table.image_id.tolist() == [7]
    assert table.label.tolist() == [1, 3]
    assert table.area.tolist() == [24.5, 5]
    assert table.iscrowd.tolist() == [False, True]
    assert table.ignore.tolist() == [True, False]
    assert table.keypoints is not None
    assert table.keypoints.shape == (2, 4, 3)
    for row in range(2):
        rle = table.segmentation[row]
        assert isinstance(rle, dict)
        np.testing.assert_array_equal(rle_to_mask(rle), MASKS[row])


def test_boxes_and_areas_from_masks() -> None:
    table = table_from_dataset([(IMAGE, target(boxes=..., masks=MASKS.astype(bool)))])
    assert table.boxes_xywh.tolist() == [[3, 2, 6, 4], [20, 10, 1, 5]]
    assert table.area.tolist() == [24, 5]
    assert table.has_masks


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (IMAGE, r"list\[0\]: expected \(image, target dict\)"),
        ((IMAGE, BOXES), "expected"),
        ((IMAGE, target(labels=...)), "it needs labels, and boxes or masks"),
        ((IMAGE, target(boxes=...)), "it needs labels, and boxes or masks"),
        ((IMAGE, target(labels=[1])), r"boxes has shape \[2, 4\] for 1 labels"),
        ((IMAGE, target(masks=MASKS[:, :5])), r"masks have shape \[2, 5, 30\]"),
        ((IMAGE, target(area=[1.0])), r"area has shape \[1\]"),
        ((IMAGE, target(labels=[0, 1])), r"list\[0\], instance 0: label 0 is outside"),
        ((IMAGE, target(boxes=BOXES * np.nan)), "finite"),
        ((np.zeros(5), target()), r"the image has shape \[5\]"),
    ],
)
def test_rejected(sample: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table_from_dataset([sample])


def test_label_beyond_the_class_map_and_repeated_ids() -> None:
    with pytest.raises(DataError, match=r"label 3 is outside 1\.\.2"):
        table_from_dataset([(IMAGE, target())], ClassMap(("a", "b")))
    with pytest.raises(DataError, match="image id 4 is used by"):
        table_from_dataset([(IMAGE, target(image_id=4)), (IMAGE, target(image_id=4))])


def test_torch_tensors_and_subsets() -> None:
    torch = pytest.importorskip("torch")
    from torchvision import tv_tensors

    class Shapes(torch.utils.data.Dataset):  # type: ignore[name-defined]
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            size = (20, 30)
            boxes = tv_tensors.BoundingBoxes(torch.from_numpy(BOXES), format="XYXY", canvas_size=size)
            return tv_tensors.Image(torch.from_numpy(IMAGE)), {
                "boxes": boxes,
                "masks": tv_tensors.Mask(torch.from_numpy(MASKS)),
                "labels": torch.tensor([1, 1]),
                "image_id": index,
                "area": (boxes[:, 3] - boxes[:, 1]) * (boxes[:, 2] - boxes[:, 0]),
                "iscrowd": torch.zeros(2, dtype=torch.int64),
            }

    table = table_from_dataset(torch.utils.data.Subset(Shapes(), [3, 1]))
    assert table.source == "Subset"
    assert table.image_id.tolist() == [3, 1]
    assert table.boxes_xywh.tolist() == [[3, 2, 6, 4], [20, 10, 1, 5]] * 2
    assert table.has_masks

    wrong = tv_tensors.BoundingBoxes(torch.from_numpy(BOXES), format="XYWH", canvas_size=(20, 30))
    with pytest.raises(DataError, match="boxes are XYWH, expected XYXY"):
        table_from_dataset([(torch.from_numpy(IMAGE), target(boxes=wrong))])
