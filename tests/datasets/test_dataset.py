"""Samples from records: sizes, masks, boxes, EXIF orientation, and errors that contain the file name."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap, LabelField, joined
from detseg.datasets import Dataset, SampleKey, check_sample
from detseg.datasets.augment import Augment, preset
from detseg.errors import DataError
from detseg.keypoints import KeypointSchema
from detseg.masks import masks_to_boxes
from detseg.orientation import orient_image
from detseg.preprocess import Preprocessing

Make = Callable[..., AnnotationTable]
SAME = Preprocessing(min_size=60, max_size=0)  # does not resize 60 x 80 images


def random_ellipses(n: int, size_hw: tuple[int, int] = (60, 80)) -> list[Any]:
    generator = np.random.default_rng(n)
    return [[*generator.uniform(5, size_hw[0] - 5, 2), *generator.uniform(0.4, 8, 2)] for _ in range(n)]


@pytest.mark.parametrize("n", [0, 1, 7, 400])
@pytest.mark.parametrize("task", ["detect", "segment"])
@pytest.mark.parametrize("name", ["none", "strong"])
def test_every_sample_is_valid(make_table: Make, n: int, task: str, name: str) -> None:
    dataset = Dataset(
        make_table([(60, 80)], [random_ellipses(n)]), Preprocessing(48, 90), task=task, augment=preset(name, task)
    )
    image, target = dataset[0]
    check_sample(image, target, num_labels=3, where="here")
    assert image.shape == (3, 48, 64)
    assert set(target) == {"boxes", "labels", "area", "iscrowd", "image_id"} | (
        {"masks"} if task == "segment" else set()
    )
    assert len(target["labels"]) == n or name == "strong"
    assert target["image_id"].tolist() == 100


@pytest.mark.parametrize("n", [0, 1, 20])
def test_masks_at_full_size_equal_pycocotools(make_table: Make, n: int) -> None:
    table = make_table([(60, 80)], [random_ellipses(n)])
    rings = table[0].segmentations
    _, target = Dataset(table, SAME, task="segment")[0]
    for ring, mask, box, area in zip(rings, target["masks"], target["boxes"], target["area"], strict=True):
        reference = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([ring[0].ravel().tolist()], 60, 80)))
        if reference.any():
            assert (mask.numpy() == reference).all()
        assert (masks_to_boxes(mask.numpy()[None])[0] == box.numpy()).all()
        assert area == mask.sum()


def test_boxes_are_scaled_exactly(make_table: Make) -> None:
    table = make_table([(60, 80)], [[(10.25, 20.5, 30.125, 11.0), (0.0, 0.0, 80.0, 60.0)]])
    _, target = Dataset(table, Preprocessing(30, 0), task="detect")[0]
    assert target["boxes"].tolist() == [[5.125, 10.25, 20.1875, 15.75], [0, 0, 40, 30]]
    assert target["area"].tolist() == [30.125 * 11 / 4, 1200]


@pytest.mark.parametrize(
    "box",
    [(-0.001, 0.0, 20.0, 20.0), (70.0, 50.0, 10.001, 10.001), (80 - 1e-9, 3.0, 1e-9, 4.0), (33.0, 3.0, 1e-12, 4.0)],
)
def test_boxes_at_the_edge_of_float32(make_table: Make, box: tuple[float, ...]) -> None:
    """None of them is lost, and none extends outside the image."""
    _, target = Dataset(make_table([(60, 80)], [[box]]), SAME, task="detect")[0]
    assert len(target["boxes"]) == 1


@pytest.mark.parametrize("centre", [(3.5, 5.5), (79.9, 59.9), (0.0, 0.0), (40.0, 30.0)])
def test_object_without_a_pixel_gets_one(make_table: Make, centre: tuple[float, float]) -> None:
    table = make_table([(60, 80)], [[[*centre, 0.05, 0.05], [30, 30, 9, 9]]])
    _, target = Dataset(table, Preprocessing(20, 0), task="segment")[0]
    assert target["masks"].sum(dim=(1, 2))[0] == 1
    x1, y1, x2, y2 = target["boxes"][0].tolist()
    assert (x1, y1) == (int(centre[0] * 26 / 80), int(centre[1] / 3))
    assert (x2, y2) == (x1 + 1, y1 + 1)


def test_crowd_and_ignored_instances_are_excluded(make_table: Make) -> None:
    table = make_table([(60, 80)], [random_ellipses(5)], crowd=[1], ignore=[3])
    _, target = Dataset(table, SAME, task="segment")[0]
    assert target["labels"].tolist() == [1, 3, 2]
    assert target["iscrowd"].tolist() == [0, 0, 0]


# Size and orientation


def test_sizes_equal_torchvision() -> None:
    generator = np.random.default_rng(0)
    for min_size, max_size in ((800, 1333), (320, 640), (100, 167), (64, 64)):
        reference = GeneralizedRCNNTransform(min_size, max_size, [0.0] * 3, [1.0] * 3)
        preprocessing = Preprocessing(min_size, max_size)
        for height, width in [(1, 1), (1, 40), (min_size, max_size), *generator.integers(50, 2500, (60, 2)).tolist()]:
            image = torch.empty(3, height, width, device="meta")
            assert tuple(reference.resize(image)[0].shape[1:]) == preprocessing.resized_hw((height, width))


@pytest.mark.parametrize(("size_hw", "expected"), [((60, 80), (30, 40)), ((81, 60), (40, 30)), ((31, 200), (9, 60))])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_resize_to_the_network_input_size(
    make_table: Make, size_hw: tuple[int, int], expected: tuple[int, int], suffix: str
) -> None:
    table = make_table([size_hw], [[]], suffix=suffix)
    dataset = Dataset(table, Preprocessing(30, 60), task="detect")
    image, _ = dataset[0]
    assert tuple(image.shape[1:]) == expected == dataset.geometry(0).network_hw
    stored = cv2.cvtColor(cv2.imread(str(table[0].path)), cv2.COLOR_BGR2RGB)
    reference = cv2.resize(stored, expected[::-1], interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
    difference = np.abs(image.numpy().astype(int) - reference)
    assert difference.max() == 0 if suffix == ".png" else difference.mean() < 4  # a JPEG may be decoded at reduced size


INVERSE = {6: 8, 8: 6}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("task", ["detect", "segment"])
def test_exif_rotated_images_match_their_boxes(make_table: Make, orientation: int, task: str) -> None:
    table = make_table(
        [(96, 160)],
        [[np.array([[20, 8], [70, 8], [70, 30], [20, 30]], float)]],
        orientation=orientation,
        suffix=".jpg",
    )
    upright = np.zeros((96, 160, 3), np.uint8)
    upright[8:30, 20:70] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = orient_image(upright, INVERSE.get(orientation, orientation))
    Image.fromarray(stored).save(table[0].path, quality=100, subsampling=0, exif=exif)
    dataset = Dataset(table, Preprocessing(48, 0), task=task)
    image, target = dataset[0]
    assert image.shape == (3, 48, 80)
    red = (image[0] > 128).numpy()
    assert np.abs(masks_to_boxes(red[None])[0] - target["boxes"][0].numpy()).max() <= 1
    assert dataset.geometry(0).orientation == orientation


def test_classification_crops_the_centre(make_table: Make) -> None:
    table = make_table([(60, 80), (90, 60)], [[], []], class_index=[[2], [0]])
    dataset = Dataset(table, Preprocessing(30, 0, crop=24), task="classify")
    for index, (size, corner, class_index) in enumerate([((30, 40), (3, 8), 2), ((45, 30), (10, 3), 0)]):
        image, target = dataset[index]
        pixels = cv2.cvtColor(cv2.imread(str(table[index].path)), cv2.COLOR_BGR2RGB)
        reference = cv2.resize(pixels, size[::-1])[corner[0] : corner[0] + 24, corner[1] : corner[1] + 24]
        assert (image.numpy() == reference.transpose(2, 0, 1)).all()
        assert dataset.geometry(index).crop_yx == corner
        assert set(target) == {"class_index", "image_id"}
        assert target["class_index"].shape == ()
        assert target["class_index"] == class_index
    fields = (LabelField("colour", table.class_map), LabelField("shape", ClassMap(("round", "square"))))
    several = replace(table, class_index=np.array([[2, -1], [0, 1]]), label_fields=fields, class_map=joined(fields))
    dataset = Dataset(several, Preprocessing(30, 0, crop=24), task="classify")
    assert [dataset[row][1]["class_index"].tolist() for row in range(2)] == [[2, -1], [0, 1]]


def test_keypoints_are_scaled_and_flipped(make_table: Make) -> None:
    points = np.array([[[10, 20, 2], [30, 40, 1], [90, 10, 2]]], float)
    schema = KeypointSchema(("left", "right", "nose"), swaps=((0, 1),))
    table = make_table([(60, 80)], [[(0, 0, 80, 60)]], keypoints=points, keypoint_schema=schema)
    assert "keypoints" not in Dataset(table, Preprocessing(30, 0), task="detect")[0][1]
    _, target = Dataset(table, Preprocessing(30, 0), task="keypoints")[0]
    assert target["keypoints"].tolist() == [[[5, 10, 2], [15, 20, 1], [0, 0, 0]]]
    flipped = Dataset(table, Preprocessing(30, 0), task="keypoints", augment=Augment([A.HorizontalFlip(p=1)]))
    assert np.allclose(flipped[0][1]["keypoints"], [[[25, 20, 1], [35, 10, 2], [0, 0, 0]]])


def test_keypoints_without_masks_and_without_points(make_table: Make) -> None:
    """Masks are not rasterized; an instance without keypoints keeps its box; a data set without them is an error."""
    schema = KeypointSchema(("a", "b"))
    points = np.zeros((2, 2, 3))
    points[0] = [[20, 20, 2], [80, 60, 1]]  # the second is exactly at the corner of the image
    instances = [[[30, 30, 9, 9], (0, 0, 8, 6)], []]
    table = make_table([(60, 80)] * 2, instances, keypoints=points, keypoint_schema=schema)
    dataset = Dataset(table, Preprocessing(30, 0), task="keypoints")
    _, target = dataset[0]
    assert target["keypoints"].tolist() == [[[10, 10, 2], [40, 30, 1]], [[0, 0, 0], [0, 0, 0]]]
    assert "masks" not in target
    assert dataset[1][1]["keypoints"].shape == (0, 2, 3)
    with pytest.raises(DataError, match="there are no keypoints; use task detect"):
        Dataset(make_table([(60, 80)], [[(0, 0, 8, 6)]]), Preprocessing(30, 0), task="keypoints")


# Randomness


def test_samples_are_a_function_of_their_key(make_table: Make) -> None:
    table = make_table([(60, 80)] * 3, [random_ellipses(3)] * 3)
    dataset = Dataset(table, SAME, task="segment", augment=preset("strong", "segment"), seed=5)

    def bits(dataset: Dataset, key: int | SampleKey) -> bytes:
        image, target = dataset[key]
        return image.numpy().tobytes() + target["masks"].numpy().tobytes()

    first = bits(dataset, 1)
    assert bits(dataset, SampleKey(1)) == first
    assert bits(pickle.loads(pickle.dumps(dataset)), 1) == first
    subset = Dataset(table.subset([2, 1]), SAME, task="segment", augment=preset("strong", "segment"), seed=5)
    assert bits(subset, 1) == first  # the same record of the full table
    others = [bits(dataset, SampleKey(1, 1)), bits(dataset, SampleKey(1, 0, 1)), bits(dataset, SampleKey(1, 1, 1))]
    others.append(bits(Dataset(table, SAME, task="segment", augment=preset("strong", "segment"), seed=6), 1))
    assert len({first, *others}) == 5


# Errors


def test_index_outside_ends_iteration(make_table: Make) -> None:
    dataset = Dataset(make_table([(60, 80)] * 2, [[], []]), SAME, task="detect")
    assert len(list(dataset)) == len(dataset) == 2
    assert torch.equal(dataset[-1][0], dataset[1][0])
    with pytest.raises(IndexError):
        dataset[2]


def test_missing_annotations_are_reported_at_creation(make_table: Make) -> None:
    table = make_table([(60, 80)], [[(1, 2, 3, 4), [9, 9, 4, 4]]])
    with pytest.raises(
        DataError, match=r"generated\.json: 1 of 2 instances have no mask, .* annotation 1; use task detect"
    ):
        Dataset(table, SAME, task="segment")
    Dataset(replace(table, iscrowd=np.array([True, False])), SAME, task="segment")
    with pytest.raises(DataError, match=r"generated\.json: 1 of 1 images have no class, the first is image_0\.png"):
        Dataset(table, SAME, task="classify")
    with pytest.raises(DataError, match="preprocessing crops to 50 px"):
        Dataset(table, replace(SAME, crop=50), task="detect")
    with pytest.raises(DataError, match="unknown task 'find'; available tasks: detect, segment, keypoints, classify"):
        Dataset(table, SAME, task="find")  # type: ignore[arg-type]


def test_errors_contain_the_file_name(make_table: Make) -> None:
    table = make_table([(60, 80)] * 4, [[], [], [], [[9, 9, 4, 4]]])
    table[0].path.write_bytes(table[0].path.read_bytes()[:200])
    table[1].path.unlink()
    dataset = Dataset(table, SAME, task="detect")
    with pytest.raises(DataError, match=r"image_0\.png: corrupt or truncated PNG"):
        dataset[0]
    with pytest.raises(OSError, match=r"image_1\.png"):
        dataset[1]
    other = replace(table, height=np.full(4, 61, np.int32))
    with pytest.raises(
        DataError, match=r"image_2\.png: the file is 80 x 60 pixels, but the annotations specify 80 x 61; .* again"
    ):
        Dataset(other, SAME, task="detect")[2]
    with pytest.raises(DataError, match=r"image_2\.png:clip: the image has no path of its own"):
        Dataset(replace(table, member=np.array(["clip"] * 4, np.dtypes.StringDType())), SAME, task="detect")[2]
    with pytest.raises(DataError, match=r"image_3\.png: the augmentation returns float32"):
        Dataset(table, SAME, task="detect", augment=Augment([A.Normalize()]))[3]
    with pytest.raises(ValueError, match="smaller than image sizes") as caught:
        Dataset(table, SAME, task="detect", augment=Augment([A.Crop(0, 0, 999, 999, p=1)]))[3]
    assert "while augmenting" in "".join(getattr(caught.value, "__notes__", []))


def test_labels_outside_the_class_map_are_an_error(make_table: Make) -> None:
    table = replace(make_table([(60, 80)], [random_ellipses(1)]), label=np.array([4], np.int32))
    with pytest.raises(DataError, match=r"image_0\.png: label 4 of instance 0 is outside 1\.\.3"):
        Dataset(table, SAME, task="detect")[0]
