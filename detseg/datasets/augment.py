"""Random transforms of a sample: albumentations behind the guards that it needs. The only file that imports it.

What the guards are for, measured on albumentations 2.0.8 (the last MIT release; unmaintained, so they stay):
its workers repeat each other's random numbers; ``set_random_seed`` gives every transform the *same* stream, so that
a flip and a blur of probability one half always come together; labels return as floats; boxes are dropped but masks
are not; an empty mask array, a box 0.001 px outside and a box without width raise; turned boxes are loose; keypoints
vanish; mirrors do not exchange left and right; the import asks the network for updates.
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
"""Entries of a target whose row i is instance i; all others belong to the image and are passed on."""

KNOWN_VERSION = "2.0.8"


class _EightPositions(A.D4):
    """All eight positions of a square; of other images the four that make them lie or stand as ``landscape`` says.

    Images of one epoch then share their shape, and a batch is padded as little as if nothing had been turned.
    """

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = params["shape"][:2]
        if height == width or data.get("landscape") is None:
            return {}
        elements = ("e", "r180", "h", "v") if (width > height) == data["landscape"] else ("r90", "r270", "t", "hvt")
        return {"group_element": elements[int(self.random_generator.integers(4))]}


# Transforms whose masks are moved pixel by pixel (nearest neighbour) and never looked at, so that eight masks can
# travel as the bits of one uint8 plane. Exact types: a subclass may do anything.
_MOVES_PIXELS: frozenset[type] = frozenset(
    {
        A.Affine, A.AtLeastOneBBoxRandomCrop, A.BBoxSafeRandomCrop, A.CenterCrop, A.Crop, A.CropAndPad, A.D4,
        A.ElasticTransform, A.GridDistortion, A.HorizontalFlip, A.LongestMaxSize, A.NoOp, A.OpticalDistortion, A.Pad,
        A.PadIfNeeded, A.Perspective, A.PiecewiseAffine, A.RandomCrop, A.RandomCropFromBorders, A.RandomGridShuffle,
        A.RandomResizedCrop, A.RandomRotate90, A.RandomScale, A.RandomSizedBBoxSafeCrop, A.RandomSizedCrop, A.Resize,
        A.Rotate, A.SafeRotate, A.ShiftScaleRotate, A.SmallestMaxSize, A.SquareSymmetry, A.ThinPlateSpline,
        A.TimeReverse, A.Transpose, A.VerticalFlip, _EightPositions,
    }
)  # fmt: skip
_GROUPS: frozenset[type] = frozenset({A.Compose, A.OneOf, A.OneOrOther, A.RandomOrder, A.Sequential, A.SomeOf})
_MIRRORS = frozenset({"HorizontalFlip", "TimeReverse", "VerticalFlip", "Transpose"})
_MIRRORING_ELEMENTS = frozenset({"v", "h", "t", "hvt"})  # of D4 and its alias SquareSymmetry


class Augment:
    """Random transforms for one sample, a function of (sample, seed) and of nothing else.

    Instances that leave the frame, or of whose box one transform leaves less than ``min_visibility`` in it, are
    removed with all that belongs to them. With masks the boxes are recomputed from them and an instance without a
    mask pixel is removed; without masks a turned box is the box around the turned box (or around its inscribed
    ellipse where the transform has ``rotate_method="ellipse"``, as the presets do).

    Args:
        transforms: albumentations transforms in order, or an ``albumentations.Compose``, of which only the transforms
            and ``p`` are used. No Normalize, no ToTensorV2: the model normalises, the dataset makes the tensors.
        min_visibility: fraction in [0, 1] of a box that must stay in the frame. Default 0.1: less than a tenth of an
            object can seldom be told apart, more than that should not become background.
    """

    def __init__(
        self, transforms: Sequence[A.BasicTransform | BaseCompose] | A.Compose, *, min_visibility: float = 0.1
    ) -> None:
        _warn_of_version(A.__version__)
        if isinstance(transforms, A.Compose):
            transforms = [A.Sequential(transforms.transforms, p=transforms.p)]
        self.transforms = list(transforms)
        self.min_visibility = min_visibility
        self.packs_masks = all(_moves_pixels(transform) for transform in self.transforms)
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
        """Transform one sample; the arguments are not changed.

        Args:
            image: uint8 [H, W, 3].
            target: numpy arrays by the sample contract: boxes float32 [N, 4] xyxy, labels int64 [N], and where in use
                masks uint8 [N, H, W], keypoints float32 [N, P, 3], area, iscrowd; or no boxes (classification).
            seed: 32-bit seed; the same seed gives the same result in any process.
            swaps: keypoint index pairs (left, right) that change places when the image is mirrored.
            landscape: whether "aerial" leaves images wider than high, or the other way; None for either.

        Returns:
            The new image uint8 [H', W', 3] and the new target, same keys, M <= N instances, boxes inside the frame.

        Raises:
            DataError: the transforms return something else than a uint8 RGB image.
        """
        keypoints = target.get("keypoints")
        arguments: dict[str, Any] = {"image": image, "landscape": landscape}
        if "boxes" in target:
            arguments |= {"bboxes": clip_xyxy(target["boxes"], image.shape[:2]), "idx": np.arange(len(target["boxes"]))}
        if keypoints is not None:
            seen = np.flatnonzero(keypoints[..., 2].reshape(-1) > 0)
            arguments |= {"keypoints": _to_indices(keypoints.reshape(-1, 3)[seen, :2], image.shape[:2]), "point": seen}
        masks = target.get("masks")
        if masks is not None and len(masks):
            arguments["masks"] = pack_bits(masks) if self.packs_masks else masks
        compose = self._compose("boxes" in target, keypoints is not None)
        # One stream for all transforms: set_random_seed would give each its own copy of the same numbers.
        compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        result = compose(**arguments)
        image = _checked_image(result["image"])
        if "boxes" not in target:
            return image, dict(target)
        moved = dict(target)
        keep = np.rint(np.asarray(result["idx"], np.float64)).astype(np.int64).reshape(-1)
        boxes = clip_xyxy(np.asarray(result["bboxes"], np.float32).reshape(-1, 4), image.shape[:2])
        if keypoints is not None:
            moved["keypoints"] = _restore_keypoints(keypoints, result, swaps)
        if masks is not None:
            moved["masks"] = self._restore_masks(masks, result)
            if not self.packs_masks:  # such transforms may move boxes and masks apart: the masks are right
                enough = np.maximum(1, self.min_visibility * mask_areas(masks))
                keep = np.union1d(keep, np.flatnonzero(mask_areas(moved["masks"]) >= enough))
            boxes = masks_to_boxes(moved["masks"])[keep]
        solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        keep, boxes = keep[solid], boxes[solid]
        if not np.array_equal(keep, np.arange(len(target["boxes"]))):  # else all masks would be copied for nothing
            moved |= {key: moved[key][keep] for key in INSTANCE_KEYS if key in moved}
        moved["area"] = _areas(target, keep, boxes, moved.get("masks"))
        moved["boxes"] = boxes
        return image, moved

    def _compose(self, boxes: bool, keypoints: bool) -> A.Compose:
        """The Compose for samples with these entries; built once each."""
        if (boxes, keypoints) not in self._composes:
            box_params = A.BboxParams(
                "pascal_voc",
                label_fields=["idx"],
                min_visibility=self.min_visibility,
                clip=True,
                filter_invalid_bboxes=True,
            )
            self._composes[boxes, keypoints] = A.Compose(
                [*copy.deepcopy(self.transforms), A.NoOp()],  # without a geometric one albumentations warns of boxes
                bbox_params=box_params if boxes else None,
                keypoint_params=A.KeypointParams("xy", label_fields=["point"]) if keypoints else None,
                mask_interpolation=cv2.INTER_NEAREST,
                save_applied_params=True,
            )
        return self._composes[boxes, keypoints]

    def _restore_masks(self, masks: npt.NDArray[np.uint8], result: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
        """uint8 [N, H', W'] in {0, 1}: all instances, before any is removed."""
        if not len(masks):
            return np.zeros((0, *result["image"].shape[:2]), np.uint8)
        moved = np.asarray(result["masks"])
        return unpack_bits(moved.astype(np.uint8), len(masks)) if self.packs_masks else (moved > 0).astype(np.uint8)


def _moves_pixels(transform: A.BasicTransform | BaseCompose) -> bool:
    """Whether masks can pass ``transform`` as bit planes."""
    if isinstance(transform, BaseCompose):
        return type(transform) in _GROUPS and all(_moves_pixels(child) for child in transform.transforms)
    if isinstance(transform, A.ImageOnlyTransform):
        return True
    return (
        type(transform) in _MOVES_PIXELS
        and getattr(transform, "fill_mask", 0) in (0, 0.0, None)  # another value is 8 masks' bits, not one's
        and getattr(transform, "area_for_downscale", None) != "image_mask"  # averages mask pixels
    )


def _checked_image(image: Any) -> Image:
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3):
        found = f"{image.dtype} {list(image.shape)}" if hasattr(image, "shape") else type(image).__name__
        raise DataError(
            f"the augmentation returns {found}, not a uint8 [H, W, 3] image; leave out Normalize, ToFloat, ToTensorV2 "
            "and ToGray with one channel: the model normalises and the dataset makes the tensors"
        )
    return np.ascontiguousarray(image)


def _to_indices(points: npt.NDArray[np.float32], size_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Points [M, 2] in pixels (the middle of the first one is 0.5) as albumentations counts: from 0 in that middle.

    It mirrors a point to W - 1 - x but a box to W - x; without this they would move apart by a pixel. Points less than
    half a pixel from the border are put onto the middle of the border's pixels.
    """
    limit = np.array(size_hw[::-1], np.float32) - 1
    return np.clip(points - np.float32(0.5), 0, limit).astype(np.float32)


def _restore_keypoints(
    keypoints: npt.NDArray[np.float32], result: Mapping[str, Any], swaps: Sequence[tuple[int, int]]
) -> npt.NDArray[np.float32]:
    """float32 [N, P, 3]: what left the frame or got lost on the way is (0, 0, 0), mirrored pairs are exchanged."""
    moved: npt.NDArray[np.float32] = np.zeros(keypoints.shape, np.float32)
    points = moved.reshape(-1, 3)
    rows = np.rint(np.asarray(result["point"], np.float64)).astype(np.int64).reshape(-1)
    points[rows, :2] = np.asarray(result["keypoints"], np.float32).reshape(-1, 2) + np.float32(0.5)
    points[rows, 2] = keypoints.reshape(-1, 3)[rows, 2]
    height, width = result["image"].shape[:2]
    points[(points[:, :2] > (width, height)).any(axis=1)] = 0
    mirrors = sum(
        name in _MIRRORS or str(parameters.get("group_element", "")) in _MIRRORING_ELEMENTS
        for name, parameters in result["applied_transforms"]
    )
    if mirrors % 2:
        order = np.arange(keypoints.shape[1])
        for left, right in swaps:
            order[[left, right]] = order[[right, left]]
        moved = moved[:, order]
    return moved


def _areas(
    target: Target, keep: npt.NDArray[np.int64], boxes: npt.NDArray[np.float32], masks: npt.NDArray[np.uint8] | None
) -> npt.NDArray[np.float32]:
    """float32 [M] square pixels: of the masks, or else the part of the box that the object filled before."""
    if masks is not None:
        return mask_areas(masks)
    sides = (target["boxes"][:, 2:] - target["boxes"][:, :2]).astype(np.float64).prod(axis=1)
    filled = np.asarray(target.get("area", sides), np.float64) / np.maximum(sides, np.finfo(np.float32).tiny)
    return (filled[keep] * (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)).astype(np.float32)


def _warn_of_version(version: str) -> None:
    if version != KNOWN_VERSION:
        warnings.warn(
            f"albumentations {version} is installed, detseg is tested with {KNOWN_VERSION}; if it is AlbumentationsX, "
            f"its licence (AGPL) is another one. pip install albumentations=={KNOWN_VERSION}",
            stacklevel=3,
        )


class _RandomZoom(A.RandomResizedCrop):
    """RandomResizedCrop back to the image's own size, whatever that is."""

    def __init__(self, scale: tuple[float, float], p: float = 1.0) -> None:
        super().__init__(size=(1, 1), scale=scale, p=p)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        self.size = tuple(params["shape"][:2])
        return super().get_params_dependent_on_data(params, data)


# The colour of what an affine transform moves in: ImageNet's mean, 0 after normalisation.
_FILL = (124, 116, 104)


def _flip(task: Task) -> list[A.BasicTransform]:
    return [A.HorizontalFlip(p=0.5)]


def _light(task: Task) -> list[A.BasicTransform]:
    """Mirror, a little brightness and contrast, a little size and place."""
    return [A.HorizontalFlip(p=0.5), *_small_changes(task)]


def _aerial(task: Task) -> list[A.BasicTransform]:
    """As light, and every one of an image's eight positions: for what is seen from above and has no upper side."""
    return [_EightPositions(p=1.0), *_small_changes(task)]


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
    """Mirror, size, place and tilt, colours, blur or noise. Large-scale jitter's range, but for small data."""
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
"""Names that :func:`preset` knows, from nothing to much."""


def fixed_views(name: str, task: Task, drawn: int) -> list[Augment | None]:
    """What the views of an image are under preset ``name``: plain, mirrored, and ``drawn`` of the preset's own.

    With "none" plain is the only one.
    """
    augment = preset(name, task)
    if augment is None:
        return [None]
    return [None, Augment([A.HorizontalFlip(p=1.0)]), *[augment] * drawn]


def preset(name: str, task: Task) -> Augment | None:
    """A ready :class:`Augment`; None for "none". Presets keep the size of the image, but for turns of "aerial".

    Raises:
        DataError: a name that is not in :data:`PRESETS`.
    """
    if name not in PRESETS:
        raise DataError(f"augmentation preset {name!r} is not known; known are {', '.join(PRESETS)}")
    return None if name == "none" else Augment(_BUILDERS[name](task))
