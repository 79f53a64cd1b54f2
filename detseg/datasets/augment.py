"""Apply random transforms to a sample: a wrapper around albumentations, and the only file that imports it.

It works around these problems of albumentations 2.0.8 (the last MIT release, unmaintained, so they will not be fixed):
workers repeat each other's random numbers; ``set_random_seed`` gives every transform the *same* stream, so that a flip
and a blur with probability one half always occur together; labels are returned as floats; boxes are dropped but masks
are not; an empty mask array, a box 0.001 px outside and a box without width raise; rotated boxes are not tight;
keypoints are lost; flips do not swap left and right; the import sends a network request for updates.
"""

from __future__ import annotations

import copy
import os
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from detseg.boxes import clip_xyxy
from detseg.datasets.area import mask_areas
from detseg.errors import DataError
from detseg.masks import masks_to_boxes, pack_bits, unpack_bits
from detseg.tasks import Task

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # must be set before the import

import albumentations as A
from albumentations.core.composition import BaseCompose

Target = dict[str, Any]
Image = npt.NDArray[np.uint8]

INSTANCE_KEYS = ("boxes", "labels", "masks", "keypoints", "area", "iscrowd")
"""Entries of a target whose row i is instance i; all others belong to the image and are returned unchanged."""

TESTED_VERSION = "2.0.8"


class _EightOrientations(A.D4):
    """Rotate and flip: all eight variants of a square; else the four with the orientation that ``landscape`` specifies.

    All images of an epoch then have the same orientation, so rotation adds no padding to a batch.
    """

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = params["shape"][:2]
        if height == width or data.get("landscape") is None:
            return {}
        elements = ("e", "r180", "h", "v") if (width > height) == data["landscape"] else ("r90", "r270", "t", "hvt")
        return {"group_element": elements[int(self.random_generator.integers(4))]}


# Transforms that move mask pixels (nearest neighbour) without using their values, so that eight masks can be processed
# as the bits of one uint8 plane. Exact types: a subclass may do anything.
_PIXEL_MOVING: frozenset[type] = frozenset(
    {
        A.Affine, A.AtLeastOneBBoxRandomCrop, A.BBoxSafeRandomCrop, A.CenterCrop, A.Crop, A.CropAndPad, A.D4,
        A.ElasticTransform, A.GridDistortion, A.HorizontalFlip, A.LongestMaxSize, A.NoOp, A.OpticalDistortion, A.Pad,
        A.PadIfNeeded, A.Perspective, A.PiecewiseAffine, A.RandomCrop, A.RandomCropFromBorders, A.RandomGridShuffle,
        A.RandomResizedCrop, A.RandomRotate90, A.RandomScale, A.RandomSizedBBoxSafeCrop, A.RandomSizedCrop, A.Resize,
        A.Rotate, A.SafeRotate, A.ShiftScaleRotate, A.SmallestMaxSize, A.SquareSymmetry, A.ThinPlateSpline,
        A.TimeReverse, A.Transpose, A.VerticalFlip, _EightOrientations,
    }
)  # fmt: skip
_GROUPS: frozenset[type] = frozenset({A.Compose, A.OneOf, A.OneOrOther, A.RandomOrder, A.Sequential, A.SomeOf})
_FLIPS = frozenset({"HorizontalFlip", "TimeReverse", "VerticalFlip", "Transpose"})
_FLIPPING_ELEMENTS = frozenset({"v", "h", "t", "hvt"})  # of D4 and its alias SquareSymmetry


class Augment:
    """Random transforms for one sample; the result depends only on (sample, seed).

    An instance that is outside the image after a transform, or whose box a transform reduces to a fraction below
    ``min_visibility``, is removed with all its entries. With masks, the boxes are recomputed from them and an instance
    without a mask pixel is removed; without masks, a rotated box becomes the bounding box of the rotated box (or of its
    inscribed ellipse if the transform has ``rotate_method="ellipse"``, as in the presets).

    Args:
        transforms: albumentations transforms in order, or an ``albumentations.Compose``, of which only the transforms
            and ``p`` are used. No Normalize, no ToTensorV2: the model normalises, the dataset creates the tensors.
        min_visibility: fraction in [0, 1] of a box that must stay inside the image. Default 0.1: less than a tenth of
            an object can seldom be recognised, more than that should not become background.
    """

    def __init__(
        self, transforms: Sequence[A.BasicTransform | BaseCompose] | A.Compose, *, min_visibility: float = 0.1
    ) -> None:
        _warn_if_untested(A.__version__)
        if isinstance(transforms, A.Compose):
            transforms = [A.Sequential(transforms.transforms, p=transforms.p)]
        self.transforms = list(transforms)
        self.min_visibility = min_visibility
        self.packs_masks = all(_can_pack_masks(transform) for transform in self.transforms)
        self._composes: dict[tuple[bool, bool], A.Compose] = {}

    def __call__(
        self,
        image: Image,
        target: Target,
        seed: int,
        *,
        swaps: Sequence[tuple[int, int]] = (),
        landscape: bool | None = None,
    ) -> tuple[Image, Target]:
        """Transform one sample; the arguments are not modified.

        Args:
            image: uint8 [H, W, 3].
            target: numpy arrays in the sample format: boxes float32 [N, 4] xyxy, labels int64 [N], and if used
                masks uint8 [N, H, W], keypoints float32 [N, P, 3], area, iscrowd; or no boxes (classification).
            seed: 32-bit seed; the same seed gives the same result in any process.
            swaps: keypoint index pairs (left, right) that are swapped when the image is flipped.
            landscape: whether "aerial" returns landscape images (True) or portrait images (False); None for either.

        Returns:
            The new image uint8 [H', W', 3] and the new target, same keys, M <= N instances, boxes inside the image.

        Raises:
            DataError: the transforms do not return a uint8 RGB image.
        """
        keypoints = target.get("keypoints")
        arguments: dict[str, Any] = {"image": image, "landscape": landscape}
        if "boxes" in target:
            arguments |= {"bboxes": clip_xyxy(target["boxes"], image.shape[:2]), "idx": np.arange(len(target["boxes"]))}
        if keypoints is not None:
            rows = np.flatnonzero(keypoints[..., 2].reshape(-1) > 0)
            arguments |= {"keypoints": _to_indices(keypoints.reshape(-1, 3)[rows, :2], image.shape[:2]), "point": rows}
        masks = target.get("masks")
        if masks is not None and len(masks):
            arguments["masks"] = pack_bits(masks) if self.packs_masks else masks
        compose = self._compose("boxes" in target, keypoints is not None)
        # One stream for all transforms: set_random_seed would give each a copy of the same numbers.
        compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        result = compose(**arguments)
        image = _check_image(result["image"])
        if "boxes" not in target:
            return image, dict(target)
        moved = dict(target)
        keep = np.rint(np.asarray(result["idx"], np.float64)).astype(np.int64).reshape(-1)
        boxes = clip_xyxy(np.asarray(result["bboxes"], np.float32).reshape(-1, 4), image.shape[:2])
        if keypoints is not None:
            moved["keypoints"] = _restore_keypoints(keypoints, result, swaps)
        if masks is not None:
            moved["masks"] = self._restore_masks(masks, result)
            if not self.packs_masks:  # such transforms may move boxes and masks differently: the masks are right
                enough = np.maximum(1, self.min_visibility * mask_areas(masks))
                keep = np.union1d(keep, np.flatnonzero(mask_areas(moved["masks"]) >= enough))
            boxes = masks_to_boxes(moved["masks"])[keep]
        solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        keep, boxes = keep[solid], boxes[solid]
        if not np.array_equal(keep, np.arange(len(target["boxes"]))):  # else all masks would be copied needlessly
            moved |= {key: moved[key][keep] for key in INSTANCE_KEYS if key in moved}
        moved["area"] = _areas(target, keep, boxes, moved.get("masks"))
        moved["boxes"] = boxes
        return image, moved

    def _compose(self, boxes: bool, keypoints: bool) -> A.Compose:
        """The Compose for samples with these entries; each is built once."""
        if (boxes, keypoints) not in self._composes:
            box_params = A.BboxParams(
                "pascal_voc",
                label_fields=["idx"],
                min_visibility=self.min_visibility,
                clip=True,
                filter_invalid_bboxes=True,
            )
            self._composes[boxes, keypoints] = A.Compose(
                [
                    *copy.deepcopy(self.transforms),
                    A.NoOp(),
                ],  # without a geometric transform albumentations warns about boxes
                bbox_params=box_params if boxes else None,
                keypoint_params=A.KeypointParams("xy", label_fields=["point"]) if keypoints else None,
                mask_interpolation=cv2.INTER_NEAREST,
                save_applied_params=True,
            )
        return self._composes[boxes, keypoints]

    def _restore_masks(self, masks: npt.NDArray[np.uint8], result: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
        """uint8 [N, H', W'] in {0, 1} of all instances, before any is removed."""
        if not len(masks):
            return np.zeros((0, *result["image"].shape[:2]), np.uint8)
        moved = np.asarray(result["masks"])
        return unpack_bits(moved.astype(np.uint8), len(masks)) if self.packs_masks else (moved > 0).astype(np.uint8)


def _can_pack_masks(transform: A.BasicTransform | BaseCompose) -> bool:
    """Whether ``transform`` can process masks as bit planes."""
    if isinstance(transform, BaseCompose):
        return type(transform) in _GROUPS and all(_can_pack_masks(child) for child in transform.transforms)
    if isinstance(transform, A.ImageOnlyTransform):
        return True
    return (
        type(transform) in _PIXEL_MOVING
        and getattr(transform, "fill_mask", 0) in (0, 0.0, None)  # another value would set bits of 8 masks
        and getattr(transform, "area_for_downscale", None) != "image_mask"  # averages mask pixels
    )


def _check_image(image: Any) -> Image:
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3):
        actual = f"{image.dtype} {list(image.shape)}" if hasattr(image, "shape") else type(image).__name__
        raise DataError(
            f"the augmentation returns {actual}, not a uint8 [H, W, 3] image; remove Normalize, ToFloat, ToTensorV2 "
            "and ToGray with one channel: the model normalises and the dataset creates the tensors"
        )
    return np.ascontiguousarray(image)


def _to_indices(points: npt.NDArray[np.float32], size_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Points [M, 2] in pixels (the centre of the first one is 0.5) in the coordinates of albumentations (0 is there).

    albumentations flips a point to W - 1 - x but a box to W - x; without this conversion they would differ by a pixel.
    Points less than half a pixel from the border are moved to the centre of the border's pixels.
    """
    limit = np.array(size_hw[::-1], np.float32) - 1
    return np.clip(points - np.float32(0.5), 0, limit).astype(np.float32)


def _restore_keypoints(
    keypoints: npt.NDArray[np.float32], result: Mapping[str, Any], swaps: Sequence[tuple[int, int]]
) -> npt.NDArray[np.float32]:
    """float32 [N, P, 3]: points that are outside the image or lost become (0, 0, 0); flipped pairs are swapped."""
    moved: npt.NDArray[np.float32] = np.zeros(keypoints.shape, np.float32)
    points = moved.reshape(-1, 3)
    rows = np.rint(np.asarray(result["point"], np.float64)).astype(np.int64).reshape(-1)
    points[rows, :2] = np.asarray(result["keypoints"], np.float32).reshape(-1, 2) + np.float32(0.5)
    points[rows, 2] = keypoints.reshape(-1, 3)[rows, 2]
    height, width = result["image"].shape[:2]
    points[(points[:, :2] > (width, height)).any(axis=1)] = 0
    flips = sum(
        name in _FLIPS or str(parameters.get("group_element", "")) in _FLIPPING_ELEMENTS
        for name, parameters in result["applied_transforms"]
    )
    if flips % 2:
        order = np.arange(keypoints.shape[1])
        for left, right in swaps:
            order[[left, right]] = order[[right, left]]
        moved = moved[:, order]
    return moved


def _areas(
    target: Target, keep: npt.NDArray[np.int64], boxes: npt.NDArray[np.float32], masks: npt.NDArray[np.uint8] | None
) -> npt.NDArray[np.float32]:
    """float32 [M] square pixels: of the masks; without masks, of the boxes times the fraction each object filled."""
    if masks is not None:
        return mask_areas(masks)
    sides = (target["boxes"][:, 2:] - target["boxes"][:, :2]).astype(np.float64).prod(axis=1)
    filled = np.asarray(target.get("area", sides), np.float64) / np.maximum(sides, np.finfo(np.float32).tiny)
    return (filled[keep] * (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)).astype(np.float32)


def _warn_if_untested(version: str) -> None:
    if version != TESTED_VERSION:
        warnings.warn(
            f"albumentations {version} is installed, but detseg is tested with {TESTED_VERSION}; AlbumentationsX has a "
            f"different licence (AGPL). pip install albumentations=={TESTED_VERSION}",
            stacklevel=3,
        )


class _RandomZoom(A.RandomResizedCrop):
    """RandomResizedCrop to the size of the input image."""

    def __init__(self, scale: tuple[float, float], p: float = 1.0) -> None:
        super().__init__(size=(1, 1), scale=scale, p=p)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        self.size = tuple(params["shape"][:2])
        return super().get_params_dependent_on_data(params, data)


# Fill colour of affine transforms: ImageNet's mean, 0 after normalisation.
_FILL = (124, 116, 104)


def _flip(task: Task) -> list[A.BasicTransform]:
    return [A.HorizontalFlip(p=0.5)]


def _light(task: Task) -> list[A.BasicTransform]:
    """Horizontal flip, small changes of brightness and contrast, small changes of scale and position."""
    return [A.HorizontalFlip(p=0.5), *_small_changes(task)]


def _aerial(task: Task) -> list[A.BasicTransform]:
    """Like light, plus the eight rotations and flips of an image: for images from above, which have no up direction."""
    return [_EightOrientations(p=1.0), *_small_changes(task)]


def _small_changes(task: Task) -> list[A.BasicTransform]:
    moves = (
        _RandomZoom(scale=(0.5, 1.0))
        if task == "classify"
        else A.Affine(
            scale=(0.9, 1.1), translate_percent=(-0.05, 0.05), keep_ratio=True, fill=_FILL,
            rotate_method="ellipse", p=0.5,
        )
    )  # fmt: skip
    return [moves, A.RandomBrightnessContrast(0.15, 0.15, p=0.5)]


def _strong(task: Task) -> list[A.BasicTransform | BaseCompose]:
    """Flip, scale, shift, rotation, colours, blur or noise. Like large-scale jitter, but adapted to small data sets."""
    moves = [
        A.Affine(
            scale=(0.6, 1.4), translate_percent=(-0.1, 0.1), rotate=(-10, 10), keep_ratio=True, fill=_FILL,
            rotate_method="ellipse", p=0.8,
        )
    ]  # fmt: skip
    if task == "classify":
        moves = [_RandomZoom(scale=(0.25, 1.0)), A.Rotate((-10, 10), fill=_FILL, p=0.5)]
    return [
        A.HorizontalFlip(p=0.5),
        *moves,
        A.ColorJitter((0.7, 1.3), (0.7, 1.3), (0.7, 1.3), (-0.04, 0.04), p=0.8),
        A.OneOf([A.GaussianBlur(sigma_limit=(0.3, 1.5)), A.GaussNoise(std_range=(0.02, 0.08))], p=0.3),
    ]


_BUILDERS: dict[str, Callable[[Task], list[Any]]] = {
    "flip": _flip,
    "light": _light,
    "aerial": _aerial,
    "strong": _strong,
}

PRESETS = ("none", *_BUILDERS)
"""Names that :func:`preset` accepts, from weak to strong."""


def fixed_views(name: str, task: Task, sampled: int) -> list[Augment | None]:
    """The fixed views of an image for preset ``name``: unchanged, flipped, and ``sampled`` random ones of the preset.

    With "none" there is only the unchanged view.
    """
    augment = preset(name, task)
    if augment is None:
        return [None]
    return [None, Augment([A.HorizontalFlip(p=1.0)]), *[augment] * sampled]


def preset(name: str, task: Task) -> Augment | None:
    """The :class:`Augment` of a preset; None for "none". Presets keep the image size, except for rotations of "aerial".

    Raises:
        DataError: a name that is not in :data:`PRESETS`.
    """
    if name not in PRESETS:
        raise DataError(f"unknown augmentation preset {name!r}; available presets: {', '.join(PRESETS)}")
    return None if name == "none" else Augment(_BUILDERS[name](task))
