"""The models' door: what torchvision would accept in silence, or crash on, is refused here with the image's id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from detseg.errors import DataError
from detseg.models.features import FrozenFeatures, Image

Target = Mapping[str, Any]

FLOAT_RANGE = (-0.25, 1.25)
"""Bounds for float images: [0, 1] and some room for the overshoot of a bicubic resize."""


def check_images(images: Sequence[Image], targets: Sequence[Target] | None = None) -> None:
    """Every image must be uint8 or float32 in [0, 1], [3, H, W], with at least one pixel, or features of one.

    Raises:
        DataError: naming the position in the batch, the image if ``targets`` tell it, and the value.
    """
    if not len(images):
        raise DataError("the batch holds no image; give at least one")
    for index, image in enumerate(images):
        if isinstance(image, FrozenFeatures):
            continue
        where = f"image {index} of the batch"
        if targets is not None and index < len(targets) and "image_id" in targets[index]:
            where += f" ({name_of(targets[index])})"
        if image.ndim != 3 or image.shape[0] != 3 or not image.numel():
            raise DataError(f"{where}: shape {list(image.shape)} is not [3, H, W] with at least one pixel")
        if image.dtype not in (torch.uint8, torch.float32):
            raise DataError(f"{where}: dtype {image.dtype}; give uint8, or float32 in [0, 1]")
        if image.is_floating_point():
            lowest, highest = (float(value) for value in image.aminmax())
            if not (lowest >= FLOAT_RANGE[0] and highest <= FLOAT_RANGE[1]):  # so that NaN fails too
                raise DataError(
                    f"{where}: values from {lowest:.4g} to {highest:.4g}; float images must lie in [0, 1] "
                    "(divide by 255, leave normalisation to the model)"
                )


def check_targets(
    images: Sequence[Image], targets: Sequence[Target] | None, num_labels: int, masks: bool, *, keypoints: int = 0
) -> None:
    """Every target of a detector must have boxes, labels and, with ``masks``, masks that fit its image.

    Boxes must be finite float32 [N, 4] with x1 < x2 and y1 < y2, at most one pixel outside the image; labels int64 [N]
    in 1..``num_labels``; masks uint8 or bool [N, H, W] of the image's size, of 0 and 1; for a model of P =
    ``keypoints`` points (0: none) keypoints finite float32 [N, P, 3]. On a GPU a good batch costs two synchronisations,
    with masks or keypoints three.

    Raises:
        DataError: naming the image and the value.
    """
    if targets is None or len(targets) != len(images):
        given = "no targets" if targets is None else f"{len(targets)} targets"
        raise DataError(f"{len(images)} images but {given}; training needs one target per image")
    for image, target in zip(images, targets, strict=True):
        _check_shapes(image, target, masks, keypoints)
    boxes = torch.cat([target["boxes"] for target in targets])
    labels = torch.cat([target["labels"] for target in targets])
    sizes = [[image.shape[2] + 1, image.shape[1] + 1] for image in images for _ in range(2)]
    limits = torch.tensor(sizes, dtype=boxes.dtype, device=boxes.device).view(-1, 4)
    limits = limits.repeat_interleave(torch.tensor([len(t["boxes"]) for t in targets], device=boxes.device), dim=0)
    # each comparison is false for NaN; the limits exclude infinity
    good = (boxes[:, :2] < boxes[:, 2:]).all(1) & (boxes >= -1).all(1) & (boxes <= limits).all(1)
    if not bool(good.all()):
        _name_bad_box(int(good.int().argmin()), images, targets)
    good = (labels >= 1) & (labels <= num_labels)
    if not bool(good.all()):
        row = int(good.int().argmin())
        where, _ = _owner(row, targets)
        raise DataError(
            f"{where}: label {int(labels[row])} is outside 1..{num_labels} (0 is background and never stored); "
            f"the model was built for {num_labels} classes"
        )
    if masks:
        good = torch.stack([(target["masks"] <= 1).all() for target in targets])
        if not bool(good.all()):
            target = targets[int(good.int().argmin())]
            raise DataError(
                f"{name_of(target)}: masks hold the value {int(target['masks'].max())}; give 0 and 1, as masks > 0 does"
            )
    if keypoints:
        good = torch.cat([target["keypoints"] for target in targets]).isfinite().flatten(1).all(1)
        if not bool(good.all()):
            where, _ = _owner(int(good.int().argmin()), targets)
            raise DataError(f"{where}: a keypoint is not finite; give points that are not labelled as 0, 0, 0")


def name_of(target: Target) -> str:
    """How an error names the image of a target."""
    if "image_id" not in target:
        return "a target without image_id"
    image_id = target["image_id"]
    return f"image_id {image_id.item() if isinstance(image_id, Tensor) and image_id.numel() == 1 else image_id}"


def _check_shapes(image: Image, target: Target, masks: bool, keypoints: int) -> None:
    where = name_of(target)
    for key in ("boxes", "labels", *(["masks"] if masks else []), *(["keypoints"] if keypoints else [])):
        if key not in target:
            raise DataError(f"{where}: target has no {key!r} but {sorted(target)}; this model trains on {key}")
        if not isinstance(target[key], Tensor):
            raise DataError(f"{where}: {key} are a {type(target[key]).__name__}; a tensor is needed")
    boxes, labels = target["boxes"], target["labels"]
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype != torch.float32:
        raise DataError(f"{where}: boxes are {boxes.dtype} {list(boxes.shape)}; float32 [N, 4] is needed")
    if labels.shape != boxes.shape[:1] or labels.dtype != torch.int64:
        raise DataError(f"{where}: labels are {labels.dtype} {list(labels.shape)}; int64 [{len(boxes)}] is needed")
    if masks:
        found, needed = target["masks"], [len(boxes), *image.shape[1:]]
        if list(found.shape) != needed:
            raise DataError(f"{where}: masks are {list(found.shape)}; {needed} is needed, as the image and boxes")
        if found.dtype not in (torch.uint8, torch.bool):
            raise DataError(f"{where}: masks are {found.dtype}; uint8 of 0 and 1 is needed")
    if keypoints:
        points = target["keypoints"]
        if points.shape != (len(boxes), keypoints, 3) or points.dtype != torch.float32:
            raise DataError(
                f"{where}: keypoints are {points.dtype} {list(points.shape)}; float32 {[len(boxes), keypoints, 3]} is "
                f"needed (x, y, visibility): the model was built for {keypoints} points"
            )


def _owner(row: int, targets: Sequence[Target]) -> tuple[str, int]:
    """Name of the image that row ``row`` of all boxes belongs to, and the image's position."""
    for index, target in enumerate(targets):
        if row < len(target["boxes"]):
            return f"{name_of(target)}, instance {row}", index
        row -= len(target["boxes"])
    raise AssertionError(row)


def _name_bad_box(row: int, images: Sequence[Image], targets: Sequence[Target]) -> None:
    box = torch.cat([target["boxes"] for target in targets])[row].tolist()
    where, index = _owner(row, targets)
    height, width = images[index].shape[1:]
    raise DataError(
        f"{where}: box {[round(value, 2) for value in box]} must be finite, with x1 < x2 and y1 < y2 (xyxy), inside "
        f"the image of {width} x {height} pixels; drop it, clip it, or put it into this image's pixels"
    )
