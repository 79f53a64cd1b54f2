"""Random transforms keep box, mask and label of an instance together, whatever they do."""

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
    """An image in which instance i is an ellipse of the colour (i + 1, *, *) with the label i % 3 + 1."""
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


def assert_contract(image: np.ndarray, target: dict[str, Any]) -> None:
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

with warnings.catch_warnings():  # that one is slow and that others are aliases
    warnings.simplefilter("ignore")
    ODD = [A.PiecewiseAffine(p=1), A.ShiftScaleRotate(p=1), A.TimeReverse(p=1)]

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
    "PiecewiseAffine": ODD[0],
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
    "ShiftScaleRotate": ODD[1],
    "SmallestMaxSize": A.SmallestMaxSize(40, p=1),
    "SquareSymmetry": A.SquareSymmetry(p=1),
    "ThinPlateSpline": A.ThinPlateSpline(p=1),
    "TimeReverse": ODD[2],
    "Transpose": A.Transpose(p=1),
    "VerticalFlip": A.VerticalFlip(p=1),
    "_EightPositions": module._EightPositions(p=1),
}


def through(augment: Augment, image: np.ndarray, boxes: np.ndarray, masks: np.ndarray, seed: int) -> np.ndarray:
    """What albumentations makes of ``masks``, plain or planes, none removed."""
    compose = augment._compose(boxes=True, keypoints=False)
    compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return np.asarray(compose(image=image, bboxes=boxes, idx=np.arange(len(boxes)), masks=masks)["masks"])


@pytest.mark.parametrize("name", sorted(PACKED))
def test_bit_planes_equal_plain_masks(name: str) -> None:
    augment = Augment([PACKED[name]])
    assert augment.packs_masks
    for seed, n in enumerate((1, 7, 8, 9, 17, 3, 2, 30)):
        image, target = sample(n, seed)
        boxes, masks = target["boxes"], target["masks"]
        plain = through(augment, image, boxes, masks, seed)
        planes = through(augment, image, boxes, pack_bits(masks), seed)
        assert (unpack_bits(planes, n) == plain).all()
        moved, changed = augment(image, target, seed)
        assert_contract(moved, changed)
        assert {mask.tobytes() for mask in changed["masks"]} <= {mask.tobytes() for mask in plain}


def test_every_allowed_transform_is_tested() -> None:
    assert {allowed.__name__ for allowed in module._MOVES_PIXELS} == set(PACKED)


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
def test_which_transforms_take_bit_planes(transform: Any, packs: bool) -> None:
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
def test_other_transforms_take_plain_masks(transform: A.BasicTransform) -> None:
    for seed in range(6):
        image, target = sample(5, seed)
        assert_contract(*Augment([transform])(image, target, seed))


# Box, mask and label stay together


@pytest.mark.parametrize("n", [0, 1, 12, 300])
@pytest.mark.parametrize("name", PRESETS[1:])
def test_presets_keep_the_contract_and_the_size(name: str, n: int) -> None:
    shapes = set()
    for seed in range(3 if n == 300 else 12):
        image, target = sample(n, seed)
        before = copy.deepcopy(target)
        moved, changed = preset(name, "segment")(image, target, seed)
        shapes.add(moved.shape)
        assert_contract(moved, changed)
        assert all((target[key] == before[key]).all() for key in before)  # the arguments stay as they are
    upright, turned = image.shape, (image.shape[1], image.shape[0], 3)
    assert shapes == ({upright, turned} if name == "aerial" else {upright})


@pytest.mark.parametrize("landscape", [True, False])
@pytest.mark.parametrize("size_hw", [(40, 60), (60, 40), (50, 50)])
def test_overhead_turns_all_images_one_way(size_hw: tuple[int, int], landscape: bool) -> None:
    """Four positions of an image lie and four stand; a square has eight whatever is asked."""
    augment = Augment([module._EightPositions(p=1)])
    image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    seen = {augment(image, {}, seed, landscape=landscape)[0].tobytes() for seed in range(200)}
    shapes = {augment(image, {}, seed, landscape=landscape)[0].shape[:2] for seed in range(200)}
    either = {augment(image, {}, seed)[0].tobytes() for seed in range(200)}
    other = {augment(image, {}, seed, landscape=not landscape)[0].tobytes() for seed in range(200)}
    assert len(either) == 8
    assert seen | other == either
    assert len(seen) == (8 if size_hw == (50, 50) else 4)
    assert shapes == {(max(size_hw), min(size_hw)) if not landscape else (min(size_hw), max(size_hw))}


@pytest.mark.parametrize("n", [1, 20])
def test_crops_keep_box_mask_and_label_together(n: int) -> None:
    augment = Augment(
        [A.RandomCrop(24, 30, p=1), A.HorizontalFlip(p=0.5), A.RandomScale((0, 0.6), interpolation=0, p=1)]
    )
    generator, kept = np.random.default_rng(3), 0
    for seed in range(30):
        height, width = SIZE
        image, masks = np.zeros((height, width, 3), np.uint8), np.zeros((n, height, width), np.uint8)
        for i, cell in enumerate(generator.permutation(20)[:n]):  # no two overlap, so the colour tells the instance
            y, x = cell // 5 * 15 + 1, cell % 5 * 16 + 1
            masks[i, y : y + 12, x : x + 13] = 1
            image[masks[i] > 0] = i + 1
        target = {"boxes": masks_to_boxes(masks), "labels": np.arange(n) + 1, "masks": masks}
        moved, changed = augment(image, target, seed)
        for box, label, mask in zip(changed["boxes"], changed["labels"], changed["masks"], strict=True):
            assert set(np.unique(moved[mask > 0])) == {label}
            assert (masks_to_boxes(mask[None])[0] == box).all()
        lost = set(range(1, n + 1)) - set(changed["labels"].tolist())
        kept += len(changed["labels"])
        for label in lost:  # all of it left, or less than a tenth stayed
            assert (moved[..., 0] == label).sum() <= 0.11 * 12 * 13 * 1.6**2
    assert kept > 0


@pytest.mark.parametrize("with_masks", [True, False])
def test_crop_that_removes_everything(with_masks: bool) -> None:
    image, target = sample(2)
    target["masks"][:] = 0
    target["masks"][:, 40:50, 60:70] = 1
    target["boxes"] = masks_to_boxes(target["masks"])
    if not with_masks:
        del target["masks"]
    moved, changed = Augment([A.Crop(0, 0, 30, 20, p=1)])(image, target, 0)
    assert_contract(moved, changed)
    assert changed["boxes"].shape == (0, 4)
    assert not with_masks or changed["masks"].shape == (0, 20, 30)


@pytest.mark.parametrize(
    ("columns", "min_visibility", "stays"),
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
def test_min_visibility(columns: int, min_visibility: float, stays: bool, with_masks: bool) -> None:
    """Of an object ten columns wide the crop leaves ``columns``."""
    image = np.zeros((20, 40, 3), np.uint8)
    masks = np.zeros((1, 20, 40), np.uint8)
    masks[0, 5:15, 10:20] = 1
    target: dict[str, Any] = {"boxes": np.array([[10, 5, 20, 15]], np.float32), "labels": np.array([1])}
    if with_masks:
        target["masks"] = masks
    crop = Augment([A.Crop(0, 0, 10 + columns, 20, p=1)], min_visibility=min_visibility)
    assert len(crop(image, target, 0)[1]["labels"]) == stays


def test_boxes_without_masks() -> None:
    image, target = sample(6)
    del target["masks"]
    target["area"] = target["area"] * 0.5
    same, changed = Augment([A.NoOp(p=1)])(image, target, 1)
    assert (same == image).all()
    assert np.abs(changed["boxes"] - target["boxes"]).max() < 1e-4  # albumentations computes in float32 of [0, 1]
    assert np.allclose(changed["area"], target["area"], rtol=1e-4)
    _, changed = Augment([A.Resize(SIZE[0] * 2, SIZE[1] * 3, p=1)])(image, target, 1)
    assert np.allclose(changed["boxes"], target["boxes"] * [3, 2, 3, 2], atol=1e-3)
    assert np.allclose(changed["area"], target["area"] * 6, rtol=1e-3)


@pytest.mark.parametrize("box", [[-0.001, 2, 9, 9], [2, 2, 84.001, 60.001], [3, 3, 3, 9], [90, 2, 95, 9]])
def test_boxes_that_albumentations_refuses(box: list[float]) -> None:
    image, _ = sample(0)
    target = {"boxes": np.array([[10, 10, 20, 20], box], np.float32), "labels": np.array([1, 2])}
    with pytest.raises(ValueError, match=r"x_m|range"):  # the control: without the guard it raises
        A.Compose([A.NoOp()], bbox_params=A.BboxParams("pascal_voc", label_fields=["idx"]))(
            image=image, bboxes=target["boxes"], idx=[0, 1]
        )
    moved, changed = Augment([A.NoOp()])(image, target, 0)
    changed |= {"iscrowd": np.zeros(len(changed["labels"]), np.uint8)}
    assert_contract(moved, changed)
    solid = box[0] < 84 and box[0] < box[2]
    assert changed["labels"].tolist() == ([1, 2] if solid else [1])


def test_classification_target_is_passed_on() -> None:
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
        ([ODD[2]], [[54, 12, 1], [74, 10, 2], [0, 0, 0]]),
        ([A.Sequential([A.HorizontalFlip(p=1), A.VerticalFlip(p=1)], p=1)], [[74, 50, 2], [54, 48, 1], [0, 0, 0]]),
        ([A.Crop(0, 0, 20, 20, p=1)], [[10, 10, 2], [0, 0, 0], [0, 0, 0]]),
    ],
)
def test_keypoints_move_vanish_and_change_places(transforms: list[Any], expected: list[list[float]]) -> None:
    image, _ = sample(0)
    target = points_target([[10, 10, 2], [30, 12, 1], [0, 0, 0]])
    _, changed = Augment(transforms)(image, target, 0, swaps=((0, 1),))
    assert np.allclose(changed["keypoints"], [expected], atol=1e-3)


def test_mirror_in_d4_is_seen() -> None:
    """Left stays left of right in an image whose mirror images are told from its turned ones by one point."""
    image, _ = sample(0, size_hw=(60, 60))
    target = points_target([[10, 10, 2], [20, 10, 2], [10, 20, 2]])
    target["boxes"][:] = 60
    target["boxes"][0, :2] = 0
    for seed in range(16):
        _, changed = Augment([A.D4(p=1)])(image, target, seed, swaps=((1, 2),))
        a, b, c = changed["keypoints"][0, :, :2]
        assert np.linalg.det([b - a, c - a]) > 0


def test_lost_keypoints_return_as_not_visible() -> None:
    image, _ = sample(0)
    target = points_target([[x, y, 2] for x in range(2, 84, 9) for y in range(2, 60, 9)])
    for seed in range(4):
        _, changed = Augment([A.ElasticTransform(alpha=200, sigma=8, p=1)])(image, target, seed)
        assert changed["keypoints"].shape == target["keypoints"].shape
        assert set(np.unique(changed["keypoints"][..., 2])) <= {0.0, 2.0}


# Randomness


def test_a_seed_gives_one_result_and_seeds_differ() -> None:
    image, target = sample(5)
    augment = preset("strong", "segment")
    first = augment(image, target, 1)
    augment(image, target, 2)
    again, copied = augment(image, target, 1), pickle.loads(pickle.dumps(augment))(image, target, 1)
    for other in (again, copied):
        assert (other[0] == first[0]).all()
        assert all((other[1][key] == first[1][key]).all() for key in first[1])
    assert len({augment(image, target, seed)[0].tobytes() for seed in range(10)}) == 10


def test_transforms_draw_independently() -> None:
    """Two fair coins show four results; albumentations' own seeding (the control) lets them fall alike."""
    image = np.arange(60 * 84 * 3, dtype=np.uint32).reshape(60, 84, 3).astype(np.uint8)
    coins = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]
    augment, control = Augment(coins), A.Compose(copy.deepcopy(coins))
    ours, theirs = Counter(), Counter()
    for seed in range(80):
        ours[augment(image, {}, seed)[0].tobytes()] += 1
        control.set_random_seed(seed)
        theirs[control(image=image)["image"].tobytes()] += 1
    assert len(ours) == 4
    assert min(ours.values()) > 8
    assert len(theirs) == 2


# What users pass


def test_a_compose_is_taken_apart() -> None:
    image, target = sample(3)
    own = A.Compose([A.HorizontalFlip(p=1)], bbox_params=A.BboxParams("coco", label_fields=["names"]), p=1)
    moved, changed = Augment(own)(image, target, 0)
    assert (moved == image[:, ::-1]).all()
    assert (changed["masks"] == target["masks"][:, :, ::-1]).all()
    never = Augment(A.Compose([A.HorizontalFlip(p=1)], p=0))
    assert (never(image, target, 0)[0] == image).all()


@pytest.mark.parametrize("n", [0, 1, 3])
def test_colours_alone_warn_of_nothing(n: int) -> None:
    image, target = sample(n)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, changed = Augment([A.InvertImg(p=1)])(image, target, 0)
    assert (changed["boxes"] == target["boxes"]).all()


@pytest.mark.parametrize("transform", [A.Normalize(), A.ToFloat(), A.ToGray(num_output_channels=1, p=1)])
def test_other_images_are_refused(transform: A.BasicTransform) -> None:
    image, target = sample(1)
    with pytest.raises(DataError, match=r"not a uint8 .* leave out Normalize"):
        Augment([transform])(image, target, 0)


def test_preset_names() -> None:
    assert PRESETS == ("none", "flip", "light", "aerial", "strong")
    assert preset("none", "detect") is None
    with pytest.raises(DataError, match="'wild' is not known; known are none, flip, light, aerial, strong"):
        preset("wild", "detect")


def test_another_version_is_named() -> None:
    with pytest.warns(UserWarning, match=r"albumentations 2\.4\.13 .*AlbumentationsX.*AGPL"):
        module._warn_of_version("2.4.13")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module._warn_of_version(A.__version__)


@pytest.mark.parametrize(("name", "asks"), [("detseg.datasets.augment", False), ("albumentations", True)])
def test_the_import_asks_no_network(name: str, asks: bool) -> None:
    """The second row is the control: albumentations alone looks for updates."""
    code = f"""
import socket
asked = []
def refuse(*arguments, **options):
    asked.append(arguments)
    raise OSError("no network here")
socket.getaddrinfo = socket.socket.connect = refuse
import {name}
print("asked", bool(asked))
"""
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"asked {asks}"
