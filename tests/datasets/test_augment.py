"""Random transforms keep box, mask and label of each instance consistent."""

from __future__ import annotations

import copy
import os
import pickle
import random
import subprocess
import sys
import warnings
from collections import Counter
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest

from detseg.datasets import augment as module
from detseg.datasets.augment import PRESETS, Augment, preset
from detseg.errors import DataError
from detseg.masks import masks_to_boxes, pack_bits, unpack_bits

SIZE = (60, 84)


def sample(n: int, seed: int = 0, *, size_hw: tuple[int, int] = SIZE) -> tuple[np.ndarray, dict[str, Any]]:
    """An image in which instance i is an ellipse with colour (i + 1, *, *) and label i % 3 + 1."""
    generator = np.random.default_rng(seed)
    height, width = size_hw
    image = np.zeros((height, width, 3), np.uint8)
    masks = np.zeros((n, height, width), np.uint8)
    for i in range(n):
        centre = (int(generator.integers(6, width - 6)), int(generator.integers(6, height - 6)))
        axes = (int(generator.integers(3, 12)), int(generator.integers(3, 12)))
        cv2.ellipse(masks[i], centre, axes, 0, 0, 360, 1, -1)
        image[masks[i] > 0] = i % 255 + 1
    return image, {
        "boxes": masks_to_boxes(masks),
        "labels": np.arange(n) % 3 + 1,
        "masks": masks,
        "area": masks.sum(axis=(1, 2)).astype(np.float32),
        "iscrowd": np.zeros(n, np.uint8),
    }


def assert_valid(image: np.ndarray, target: dict[str, Any]) -> None:
    n, (height, width) = len(target["labels"]), image.shape[:2]
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    for key, dtype in (("boxes", np.float32), ("labels", np.int64), ("area", np.float32), ("iscrowd", np.uint8)):
        assert target[key].dtype == dtype
        assert len(target[key]) == n
    boxes = target["boxes"].reshape(n, 4)
    assert (boxes >= 0).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert (boxes[:, 2:] <= [width, height]).all()
    if "masks" in target:
        assert target["masks"].shape == (n, height, width)
        assert set(np.unique(target["masks"])) <= {0, 1}
        assert (masks_to_boxes(target["masks"]) == boxes).all()
        assert (target["area"] == target["masks"].sum(axis=(1, 2))).all()


# Bit planes

with warnings.catch_warnings():  # about a slow transform and about aliases
    warnings.simplefilter("ignore")
    DEPRECATED = [A.PiecewiseAffine(p=1), A.ShiftScaleRotate(p=1), A.TimeReverse(p=1)]

PACKED: dict[str, A.BasicTransform] = {
    "Affine": A.Affine(scale=(0.5, 1.5), rotate=(-40, 40), shear=(-10, 10), p=1),
    "AtLeastOneBBoxRandomCrop": A.AtLeastOneBBoxRandomCrop(40, 50, p=1),
    "BBoxSafeRandomCrop": A.BBoxSafeRandomCrop(p=1),
    "CenterCrop": A.CenterCrop(40, 50, p=1),
    "Crop": A.Crop(5, 6, 40, 44, p=1),
    "CropAndPad": A.CropAndPad(percent=(-0.2, 0.2), p=1),
    "D4": A.D4(p=1),
    "ElasticTransform": A.ElasticTransform(alpha=60, sigma=5, p=1),
    "GridDistortion": A.GridDistortion(distort_limit=0.4, p=1),
    "HorizontalFlip": A.HorizontalFlip(p=1),
    "LongestMaxSize": A.LongestMaxSize(64, p=1),
    "NoOp": A.NoOp(p=1),
    "OpticalDistortion": A.OpticalDistortion(distort_limit=0.5, p=1),
    "Pad": A.Pad(padding=(3, 4, 5, 6), p=1),
    "PadIfNeeded": A.PadIfNeeded(100, 100, border_mode=cv2.BORDER_REFLECT_101, p=1),
    "Perspective": A.Perspective(p=1),
    "PiecewiseAffine": DEPRECATED[0],
    "RandomCrop": A.RandomCrop(40, 50, p=1),
    "RandomCropFromBorders": A.RandomCropFromBorders(p=1),
    "RandomGridShuffle": A.RandomGridShuffle((2, 2), p=1),
    "RandomResizedCrop": A.RandomResizedCrop((50, 50), p=1),
    "RandomRotate90": A.RandomRotate90(p=1),
    "RandomScale": A.RandomScale((-0.5, 0.5), p=1),
    "RandomSizedBBoxSafeCrop": A.RandomSizedBBoxSafeCrop(50, 50, p=1),
    "RandomSizedCrop": A.RandomSizedCrop((30, 60), (50, 50), p=1),
    "Resize": A.Resize(37, 91, p=1),
    "Rotate": A.Rotate(90, p=1),
    "SafeRotate": A.SafeRotate(90, p=1),
    "ShiftScaleRotate": DEPRECATED[1],
    "SmallestMaxSize": A.SmallestMaxSize(40, p=1),
    "SquareSymmetry": A.SquareSymmetry(p=1),
    "ThinPlateSpline": A.ThinPlateSpline(p=1),
    "TimeReverse": DEPRECATED[2],
    "Transpose": A.Transpose(p=1),
    "VerticalFlip": A.VerticalFlip(p=1),
    "_EightOrientations": module._EightOrientations(p=1),
}


def transformed_masks(
    augment: Augment, image: np.ndarray, boxes: np.ndarray, masks: np.ndarray, seed: int
) -> np.ndarray:
    """``masks`` (unpacked or bit planes) after the transforms of albumentations, none removed."""
    compose = augment._compose(boxes=True, keypoints=False)
    compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return np.asarray(compose(image=image, bboxes=boxes, idx=np.arange(len(boxes)), masks=masks)["masks"])


@pytest.mark.parametrize("name", sorted(PACKED))
def test_bit_planes_equal_unpacked_masks(name: str) -> None:
    augment = Augment([PACKED[name]])
    assert augment.packs_masks
    for seed, n in enumerate((1, 7, 8, 9, 17, 3, 2, 30)):
        image, target = sample(n, seed)
        boxes, masks = target["boxes"], target["masks"]
        unpacked = transformed_masks(augment, image, boxes, masks, seed)
        planes = transformed_masks(augment, image, boxes, pack_bits(masks), seed)
        assert (unpack_bits(planes, n) == unpacked).all()
        moved, changed = augment(image, target, seed)
        assert_valid(moved, changed)
        assert {mask.tobytes() for mask in changed["masks"]} <= {mask.tobytes() for mask in unpacked}


def test_every_allowed_transform_is_tested() -> None:
    assert {allowed.__name__ for allowed in module._PIXEL_MOVING} == set(PACKED)


@pytest.mark.parametrize(
    ("transform", "packs"),
    [
        (A.NoOp(), True),
        (A.RandomBrightnessContrast(), True),
        (A.OneOf([A.HorizontalFlip(), A.Sequential([A.Rotate(), A.GaussianBlur()])]), True),
        (A.OneOf([A.HorizontalFlip(), A.MaskDropout()]), False),
        (A.MaskDropout(), False),
        (A.Morphological(), False),
        (A.XYMasking((1, 2), (1, 2), 4, 4, fill_mask=0), False),
        (A.Affine(fill_mask=1), False),
        (A.RandomResizedCrop((8, 8), area_for_downscale="image_mask"), False),
        (type("Mine", (A.HorizontalFlip,), {})(), False),
    ],
)
def test_which_transforms_accept_bit_planes(transform: Any, packs: bool) -> None:
    assert Augment([transform]).packs_masks is packs


@pytest.mark.parametrize(
    "transform",
    [
        A.XYMasking((1, 3), (1, 3), 9, 9, fill_mask=0, p=1),
        A.CropNonEmptyMaskIfExists(30, 40, p=1),
        A.GridDropout(ratio=0.4, fill_mask=0, p=1),
        A.Affine(translate_percent=0.3, fill_mask=1, p=1),
        A.Erasing(fill_mask=0, p=1),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_other_transforms_get_unpacked_masks(transform: A.BasicTransform) -> None:
    for seed in range(6):
        image, target = sample(5, seed)
        assert_valid(*Augment([transform])(image, target, seed))


# Box, mask and label stay consistent


@pytest.mark.parametrize("n", [0, 1, 12, 300])
@pytest.mark.parametrize("name", PRESETS[1:])
def test_presets_return_valid_samples_of_the_same_size(name: str, n: int) -> None:
    shapes = set()
    for seed in range(3 if n == 300 else 12):
        image, target = sample(n, seed)
        before = copy.deepcopy(target)
        moved, changed = preset(name, "segment")(image, target, seed)
        shapes.add(moved.shape)
        assert_valid(moved, changed)
        assert all((target[key] == before[key]).all() for key in before)  # the arguments are not modified
    original, rotated = image.shape, (image.shape[1], image.shape[0], 3)
    assert shapes == ({original, rotated} if name == "aerial" else {original})


@pytest.mark.parametrize("landscape", [True, False])
@pytest.mark.parametrize("size_hw", [(40, 60), (60, 40), (50, 50)])
def test_aerial_rotates_all_images_to_one_orientation(size_hw: tuple[int, int], landscape: bool) -> None:
    """Four variants of an image are landscape and four are portrait; a square always has eight."""
    augment = Augment([module._EightOrientations(p=1)])
    image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    variants = {augment(image, {}, seed, landscape=landscape)[0].tobytes() for seed in range(200)}
    shapes = {augment(image, {}, seed, landscape=landscape)[0].shape[:2] for seed in range(200)}
    either = {augment(image, {}, seed)[0].tobytes() for seed in range(200)}
    other = {augment(image, {}, seed, landscape=not landscape)[0].tobytes() for seed in range(200)}
    assert len(either) == 8
    assert variants | other == either
    assert len(variants) == (8 if size_hw == (50, 50) else 4)
    assert shapes == {(max(size_hw), min(size_hw)) if not landscape else (min(size_hw), max(size_hw))}


@pytest.mark.parametrize("n", [1, 20])
def test_crops_keep_box_mask_and_label_consistent(n: int) -> None:
    augment = Augment(
        [A.RandomCrop(24, 30, p=1), A.HorizontalFlip(p=0.5), A.RandomScale((0, 0.6), interpolation=0, p=1)]
    )
    generator, remaining = np.random.default_rng(3), 0
    for seed in range(30):
        height, width = SIZE
        image, masks = np.zeros((height, width, 3), np.uint8), np.zeros((n, height, width), np.uint8)
        for i, cell in enumerate(
            generator.permutation(20)[:n]
        ):  # no two overlap, so the colour identifies the instance
            y, x = cell // 5 * 15 + 1, cell % 5 * 16 + 1
            masks[i, y : y + 12, x : x + 13] = 1
            image[masks[i] > 0] = i + 1
        target = {"boxes": masks_to_boxes(masks), "labels": np.arange(n) + 1, "masks": masks}
        moved, changed = augment(image, target, seed)
        for box, label, mask in zip(changed["boxes"], changed["labels"], changed["masks"], strict=True):
            assert set(np.unique(moved[mask > 0])) == {label}
            assert (masks_to_boxes(mask[None])[0] == box).all()
        lost = set(range(1, n + 1)) - set(changed["labels"].tolist())
        remaining += len(changed["labels"])
        for label in lost:  # completely outside, or less than a tenth remained inside
            assert (moved[..., 0] == label).sum() <= 0.11 * 12 * 13 * 1.6**2
    assert remaining > 0


@pytest.mark.parametrize("with_masks", [True, False])
def test_crop_that_removes_everything(with_masks: bool) -> None:
    image, target = sample(2)
    target["masks"][:] = 0
    target["masks"][:, 40:50, 60:70] = 1
    target["boxes"] = masks_to_boxes(target["masks"])
    if not with_masks:
        del target["masks"]
    moved, changed = Augment([A.Crop(0, 0, 30, 20, p=1)])(image, target, 0)
    assert_valid(moved, changed)
    assert changed["boxes"].shape == (0, 4)
    assert not with_masks or changed["masks"].shape == (0, 20, 30)


@pytest.mark.parametrize(
    ("columns", "min_visibility", "remains"),
    [
        (0, 0.0, False),
        (1, 0.0, True),
        (1, 0.05, True),
        (1, 0.15, False),
        (4, 0.5, False),
        (6, 0.5, True),
        (10, 0.99, True),
    ],
)
@pytest.mark.parametrize("with_masks", [True, False])
def test_min_visibility(columns: int, min_visibility: float, remains: bool, with_masks: bool) -> None:
    """The crop keeps ``columns`` of the ten columns of an object."""
    image = np.zeros((20, 40, 3), np.uint8)
    masks = np.zeros((1, 20, 40), np.uint8)
    masks[0, 5:15, 10:20] = 1
    target: dict[str, Any] = {"boxes": np.array([[10, 5, 20, 15]], np.float32), "labels": np.array([1])}
    if with_masks:
        target["masks"] = masks
    crop = Augment([A.Crop(0, 0, 10 + columns, 20, p=1)], min_visibility=min_visibility)
    assert len(crop(image, target, 0)[1]["labels"]) == remains


def test_boxes_without_masks() -> None:
    image, target = sample(6)
    del target["masks"]
    target["area"] = target["area"] * 0.5
    unchanged, changed = Augment([A.NoOp(p=1)])(image, target, 1)
    assert (unchanged == image).all()
    assert np.abs(changed["boxes"] - target["boxes"]).max() < 1e-4  # albumentations computes in float32 of [0, 1]
    assert np.allclose(changed["area"], target["area"], rtol=1e-4)
    _, changed = Augment([A.Resize(SIZE[0] * 2, SIZE[1] * 3, p=1)])(image, target, 1)
    assert np.allclose(changed["boxes"], target["boxes"] * [3, 2, 3, 2], atol=1e-3)
    assert np.allclose(changed["area"], target["area"] * 6, rtol=1e-3)


@pytest.mark.parametrize("box", [[-0.001, 2, 9, 9], [2, 2, 84.001, 60.001], [3, 3, 3, 9], [90, 2, 95, 9]])
def test_boxes_that_albumentations_rejects(box: list[float]) -> None:
    image, _ = sample(0)
    target = {"boxes": np.array([[10, 10, 20, 20], box], np.float32), "labels": np.array([1, 2])}
    with pytest.raises(ValueError, match=r"x_m|range"):  # control: without the wrapper it raises
        A.Compose([A.NoOp()], bbox_params=A.BboxParams("pascal_voc", label_fields=["idx"]))(
            image=image, bboxes=target["boxes"], idx=[0, 1]
        )
    moved, changed = Augment([A.NoOp()])(image, target, 0)
    changed |= {"iscrowd": np.zeros(len(changed["labels"]), np.uint8)}
    assert_valid(moved, changed)
    has_area = box[0] < 84 and box[0] < box[2]
    assert changed["labels"].tolist() == ([1, 2] if has_area else [1])


def test_classification_target_is_returned_unchanged() -> None:
    image, _ = sample(0)
    for name in PRESETS[1:]:
        moved, target = preset(name, "classify")(image, {"class_index": np.array([3])}, 5)
        assert sorted(moved.shape) == sorted(image.shape)
        assert target["class_index"].tolist() == [3]


# Keypoints


def points_target(points: list[list[float]]) -> dict[str, Any]:
    return {
        "boxes": np.array([[0, 0, 84, 60]], np.float32),
        "labels": np.array([1]),
        "keypoints": np.array([points], np.float32),
    }


@pytest.mark.parametrize(
    ("transforms", "expected"),
    [
        ([A.NoOp()], [[10, 10, 2], [30, 12, 1], [0, 0, 0]]),
        ([A.HorizontalFlip(p=1)], [[54, 12, 1], [74, 10, 2], [0, 0, 0]]),
        ([DEPRECATED[2]], [[54, 12, 1], [74, 10, 2], [0, 0, 0]]),
        ([A.Sequential([A.HorizontalFlip(p=1), A.VerticalFlip(p=1)], p=1)], [[74, 50, 2], [54, 48, 1], [0, 0, 0]]),
        ([A.Crop(0, 0, 20, 20, p=1)], [[10, 10, 2], [0, 0, 0], [0, 0, 0]]),
    ],
)
def test_keypoints_are_moved_removed_and_swapped(transforms: list[Any], expected: list[list[float]]) -> None:
    image, _ = sample(0)
    target = points_target([[10, 10, 2], [30, 12, 1], [0, 0, 0]])
    _, changed = Augment(transforms)(image, target, 0, swaps=((0, 1),))
    assert np.allclose(changed["keypoints"], [expected], atol=1e-3)


def test_flips_in_d4_are_detected() -> None:
    """Left and right are swapped in flipped images and not in rotated ones; a third point distinguishes them."""
    image, _ = sample(0, size_hw=(60, 60))
    target = points_target([[10, 10, 2], [20, 10, 2], [10, 20, 2]])
    target["boxes"][:] = 60
    target["boxes"][0, :2] = 0
    for seed in range(16):
        _, changed = Augment([A.D4(p=1)])(image, target, seed, swaps=((1, 2),))
        a, b, c = changed["keypoints"][0, :, :2]
        assert np.linalg.det([b - a, c - a]) > 0


def test_lost_keypoints_become_not_visible() -> None:
    image, _ = sample(0)
    target = points_target([[x, y, 2] for x in range(2, 84, 9) for y in range(2, 60, 9)])
    for seed in range(4):
        _, changed = Augment([A.ElasticTransform(alpha=200, sigma=8, p=1)])(image, target, seed)
        assert changed["keypoints"].shape == target["keypoints"].shape
        assert set(np.unique(changed["keypoints"][..., 2])) <= {0.0, 2.0}


# Randomness


def test_results_are_a_function_of_the_seed() -> None:
    image, target = sample(5)
    augment = preset("strong", "segment")
    first = augment(image, target, 1)
    augment(image, target, 2)
    again, copied = augment(image, target, 1), pickle.loads(pickle.dumps(augment))(image, target, 1)
    for other in (again, copied):
        assert (other[0] == first[0]).all()
        assert all((other[1][key] == first[1][key]).all() for key in first[1])
    assert len({augment(image, target, seed)[0].tobytes() for seed in range(10)}) == 10


def test_transforms_use_independent_random_numbers() -> None:
    """Two transforms with p=0.5 have four results; with albumentations' seeding (control) they always agree."""
    image = np.arange(60 * 84 * 3, dtype=np.uint32).reshape(60, 84, 3).astype(np.uint8)
    flips = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]
    augment, control = Augment(flips), A.Compose(copy.deepcopy(flips))
    results, control_results = Counter(), Counter()
    for seed in range(80):
        results[augment(image, {}, seed)[0].tobytes()] += 1
        control.set_random_seed(seed)
        control_results[control(image=image)["image"].tobytes()] += 1
    assert len(results) == 4
    assert min(results.values()) > 8
    assert len(control_results) == 2


# User input


def test_transforms_of_a_compose_are_used() -> None:
    image, target = sample(3)
    compose = A.Compose([A.HorizontalFlip(p=1)], bbox_params=A.BboxParams("coco", label_fields=["names"]), p=1)
    moved, changed = Augment(compose)(image, target, 0)
    assert (moved == image[:, ::-1]).all()
    assert (changed["masks"] == target["masks"][:, :, ::-1]).all()
    never = Augment(A.Compose([A.HorizontalFlip(p=1)], p=0))
    assert (never(image, target, 0)[0] == image).all()


@pytest.mark.parametrize("n", [0, 1, 3])
def test_colour_transforms_do_not_warn(n: int) -> None:
    image, target = sample(n)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, changed = Augment([A.InvertImg(p=1)])(image, target, 0)
    assert (changed["boxes"] == target["boxes"]).all()


@pytest.mark.parametrize("transform", [A.Normalize(), A.ToFloat(), A.ToGray(num_output_channels=1, p=1)])
def test_other_image_types_are_rejected(transform: A.BasicTransform) -> None:
    image, target = sample(1)
    with pytest.raises(DataError, match=r"not a uint8 .* remove Normalize"):
        Augment([transform])(image, target, 0)


def test_preset_names() -> None:
    assert PRESETS == ("none", "flip", "light", "aerial", "strong")
    assert preset("none", "detect") is None
    with pytest.raises(DataError, match="'wild'; available presets: none, flip, light, aerial, strong"):
        preset("wild", "detect")


def test_other_versions_cause_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"albumentations 2\.4\.13 .*AlbumentationsX.*AGPL"):
        module._warn_if_untested("2.4.13")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module._warn_if_untested(A.__version__)


@pytest.mark.parametrize(("name", "uses_network"), [("detseg.datasets.augment", False), ("albumentations", True)])
def test_the_import_uses_no_network(name: str, uses_network: bool) -> None:
    """The second row is the control: albumentations alone checks for updates."""
    code = f"""
import socket
requests = []
def refuse(*arguments, **options):
    requests.append(arguments)
    raise OSError("no network here")
socket.getaddrinfo = socket.socket.connect = refuse
import {name}
print("requests", bool(requests))
"""
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"requests {uses_network}"
